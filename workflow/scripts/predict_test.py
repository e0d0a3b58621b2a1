"""Mask the test part with the bundle exactly as delivered: it is written to a separate folder and loaded."""

from pathlib import Path

from cloudcover.pipeline.job import start


def main() -> None:
    params = start(snakemake)
    from tempfile import TemporaryDirectory

    from cloudcover.data import tables
    from cloudcover.data.folds import TEST
    from cloudcover.data.store import ChipStore
    from cloudcover.evaluate.calibrate.calibration import Calibration
    from cloudcover.predict.bundle import load_bundle, write_bundle
    from cloudcover.predict.unlabelled import predict_test
    from cloudcover.runtime.files import read_json

    store = ChipStore(Path(snakemake.input.index).parent)
    folds = tables.FOLDS.read(snakemake.input.folds)
    calibration = Calibration.model_validate(read_json(snakemake.input.calibration))
    compute = params.compute
    with TemporaryDirectory(dir=Path(snakemake.output.masks).parent) as bundle:
        folders = [Path(model).parent for model in snakemake.input.models]
        write_bundle(folders, calibration.tta, calibration.settings, Path(bundle))
        predictor = load_bundle(Path(bundle), compute.device, compute.precision, compute.prediction_batch)
        test = folds[folds["fold"] == TEST]
        predict_test(store, test, predictor, Path(snakemake.output.masks), Path(snakemake.output.index))


if __name__ == "__main__":
    main()
