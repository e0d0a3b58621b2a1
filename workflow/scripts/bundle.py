"""Copy the final models into one folder with a model card, ready for `cloudcover predict --model models/bundle`."""

from pathlib import Path

from cloudcover.pipeline.job import start


def main() -> None:
    start(snakemake)
    from cloudcover.evaluate.calibrate.calibration import Calibration
    from cloudcover.predict.bundle import write_bundle
    from cloudcover.runtime.files import read_json

    calibration = Calibration.model_validate(read_json(snakemake.input.calibration))
    folders = [Path(model).parent for model in snakemake.input.models]
    figures = read_json(snakemake.input.metrics)["final"]
    write_bundle(folders, calibration.tta, calibration.settings, Path(snakemake.output[0]).parent, figures)


if __name__ == "__main__":
    main()
