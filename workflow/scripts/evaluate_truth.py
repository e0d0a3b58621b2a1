"""Evaluate audit, pseudo-labels and models against true masks, if the source has them."""

from pathlib import Path

from cloudcover.pipeline.job import start


def main() -> None:
    params = start(snakemake)
    from cloudcover.data import tables
    from cloudcover.data.store import ChipStore
    from cloudcover.evaluate.runs import judged_runs
    from cloudcover.evaluate.truth import evaluate_truth
    from cloudcover.masks.out_of_fold import BundleMasks, OutOfFold
    from cloudcover.masks.pseudo import PseudoLabels
    from cloudcover.masks.truth import TrueMasks
    from cloudcover.pipeline.paths import run_folders
    from cloudcover.runtime.files import write_json

    folders = run_folders(snakemake.input.predictions)
    judges = {folder.name: OutOfFold([folder]) for folder in run_folders(snakemake.input.oof)}
    bundle = BundleMasks(Path(snakemake.input.bundle))
    figures, counts = evaluate_truth(
        TrueMasks(Path(snakemake.input.truth)),
        ChipStore(Path(snakemake.input.index).parent),
        tables.MANIFEST.read(snakemake.input.manifest),
        tables.FOLDS.read(snakemake.input.folds),
        tables.AUDIT.read(snakemake.input.audit) if snakemake.input.audit else None,
        judged_runs(snakemake.params.runs, folders, bundle, params.prediction, params.evaluation.threshold),
        {path.parent.name: (tables.ROUND.read(path), PseudoLabels(path)) for path in map(Path, snakemake.input.rounds)},
        judges,
        params.prediction.judge_tta,
        params.evaluation,
        params.seed,
    )
    write_json(snakemake.output.figures, figures)
    tables.COUNTS.write(counts, snakemake.output.chips)


if __name__ == "__main__":
    main()
