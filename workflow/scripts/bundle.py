"""Copies the final models into one folder with a model card, ready for `cloudcover predict --model models/bundle`."""

from pathlib import Path

from cloudcover.pipeline.job import start


def main() -> None:
    params = start(snakemake)
    from cloudcover.evaluate.calibrate.calibration import Calibration
    from cloudcover.predict.bundle import write_bundle
    from cloudcover.runtime.files import read_json

    calibration = Calibration.model_validate(read_json(snakemake.input.calibration))
    folders = [Path(model).parent for model in snakemake.input.models]
    metrics = read_json(snakemake.input.metrics)
    write_bundle(folders, params.evaluation, metrics, Path(snakemake.output[0]).parent, calibration.settings)


if __name__ == "__main__":
    main()
