"""Choose weights, temperature, threshold and post-processing of the final models on held-out scenes."""

from pathlib import Path

from cloudcover.pipeline.job import start


def main() -> None:
    params = start(snakemake)
    from cloudcover.data import tables
    from cloudcover.data.store import ChipStore
    from cloudcover.evaluate.calibrate.calibrator import calibrate
    from cloudcover.evaluate.calibrate.held_out import load_held_out
    from cloudcover.pipeline.paths import run_folders
    from cloudcover.runtime.files import write_json, write_text

    tta = params.prediction.tta
    held = load_held_out(
        ChipStore(Path(snakemake.input.index).parent),
        tables.MANIFEST.read(snakemake.input.labels),
        {folder.name: folder for folder in run_folders(snakemake.input.oof)},
        tta,
        params.calibration,
        params.seed,
    )
    calibration, ensemble, reliability = calibrate(
        held, tta, params.evaluation, params.calibration, params.seed, snakemake.threads
    )
    write_text(snakemake.output.ensemble, ensemble.to_csv(index=False))
    write_text(snakemake.output.reliability, reliability.to_csv(index=False))
    write_json(snakemake.output.calibration, calibration.model_dump(mode="json"))


if __name__ == "__main__":
    main()
