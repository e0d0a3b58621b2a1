"""Pseudo-labels of one round: masks of {0, 1, 255} and which of them are accepted."""

from pathlib import Path

from cloudcover.job import start


def main() -> None:
    """See the module."""
    params = start(snakemake)
    from cloudcover import tables
    from cloudcover.predict import Predictor
    from cloudcover.pseudo_labels import pseudo_label
    from cloudcover.store import Store

    compute = params.compute
    policy = params.pseudo_labels.tta
    teachers = {
        fold: Predictor([Path(model).parent], policy, compute.device, compute.precision, compute.prediction_batch)
        for fold, model in enumerate(snakemake.input.models)
    }
    pseudo_label(
        Store(Path(snakemake.input.index).parent),
        tables.MANIFEST.read(snakemake.input.manifest),
        tables.FOLDS.read(snakemake.input.folds),
        teachers,
        params.pseudo_labels,
        Path(snakemake.output[0]).parent,
        Path(snakemake.input.previous) if snakemake.input.previous else None,
    )


if __name__ == "__main__":
    main()
