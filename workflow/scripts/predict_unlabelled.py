"""Mask the unlabelled chips with the final bundle, as GeoTIFFs of {0, 1, 255}."""

from pathlib import Path

from cloudcover.pipeline.job import start


def main() -> None:
    params = start(snakemake)
    from cloudcover.data.store import ChipStore
    from cloudcover.predict.bundle import load_bundle
    from cloudcover.predict.unlabelled import predict_unlabelled

    compute = params.compute
    predictor = load_bundle(
        Path(snakemake.input.bundle).parent, compute.device, compute.precision, compute.prediction_batch
    )
    predict_unlabelled(ChipStore(Path(snakemake.input.index).parent), predictor, Path(snakemake.output[0]).parent)


if __name__ == "__main__":
    main()
