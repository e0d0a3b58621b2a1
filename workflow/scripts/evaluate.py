"""Evaluate all runs on chips that no model has seen: Jaccard from sums (0-1), 95 % intervals by location."""

from pathlib import Path

from cloudcover.pipeline.job import start


def main() -> None:
    params = start(snakemake)
    from cloudcover.config.runs import member_of
    from cloudcover.data import tables
    from cloudcover.data.store import ChipStore
    from cloudcover.evaluate.calibrate.calibration import Calibration
    from cloudcover.evaluate.runs import judged_runs
    from cloudcover.evaluate.summary import evaluate, write_comparisons, write_tables
    from cloudcover.masks.out_of_fold import BundleMasks
    from cloudcover.pipeline.paths import run_folders
    from cloudcover.runtime.files import read_json, write_json

    names, folders = snakemake.params.runs, run_folders(snakemake.input.predictions)
    bundle = BundleMasks(Path(snakemake.input.bundle))
    runs = judged_runs(names, folders, bundle, params.prediction, params.evaluation.threshold)
    metrics, counts = evaluate(
        ChipStore(Path(snakemake.input.index).parent),
        tables.MANIFEST.read(snakemake.input.manifest),
        tables.FOLDS.read(snakemake.input.folds),
        runs,
        {Path(path).parent.name: tables.ROUND.read(path) for path in snakemake.input.rounds},
        params.evaluation,
        params.seed,
    )
    metrics["calibration"] = Calibration.model_validate(read_json(snakemake.input.calibration)).figures()
    output = snakemake.output
    members = [folder for name, folder in zip(names, folders, strict=True) if member_of(name)]
    write_tables(counts, output.chips, output.locations, output.scenes)
    write_comparisons(counts, members, params.prediction, params.evaluation, params.seed, dict(output.items()))
    write_json(output.metrics, metrics)


if __name__ == "__main__":
    main()
