"""Weights, temperature, threshold and post-processing of the final models, chosen on held-out scenes."""

from pathlib import Path

from cloudcover.pipeline.job import start


def main() -> None:
    params = start(snakemake)
    from cloudcover.data import tables
    from cloudcover.data.store import ChipStore
    from cloudcover.evaluate.calibrate.calibrator import calibrate
    from cloudcover.evaluate.calibrate.held_out import load_held_out
    from cloudcover.runtime.files import write_json, write_text

    folders = {Path(path).parent.name: Path(path).parent for path in snakemake.input.oof}
    held = load_held_out(
        ChipStore(Path(snakemake.input.index).parent),
        tables.MANIFEST.read(snakemake.input.manifest),
        folders,
        params.evaluation.tta[-1],
        params.calibration,
        params.seed,
    )
    calibration, ensemble, reliability = calibrate(
        held, params.evaluation, params.calibration, params.seed, snakemake.threads
    )
    write_text(snakemake.output.ensemble, ensemble.to_csv(index=False))
    write_text(snakemake.output.reliability, reliability.to_csv(index=False))
    write_json(snakemake.output.calibration, calibration.model_dump(mode="json"))


if __name__ == "__main__":
    main()
