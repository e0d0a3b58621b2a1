"""Judge every label by a run's out-of-fold probabilities: its suspicion in 0-1, with reasons."""

from functools import partial
from pathlib import Path

from cloudcover.pipeline.job import start


def main() -> None:
    params = start(snakemake)
    from cloudcover.data import tables
    from cloudcover.data.store import ChipStore
    from cloudcover.labels.audit import judge_labels
    from cloudcover.masks.out_of_fold import OutOfFold
    from cloudcover.runtime.arrays import open_array

    predictions, first = OutOfFold([Path(snakemake.input.oof).parent]), snakemake.input.previous
    table = judge_labels(
        ChipStore(Path(snakemake.input.index).parent),
        tables.EVIDENCE.read(snakemake.input.evidence),
        open_array(Path(snakemake.input.votes)),
        partial(predictions.probabilities, policy=params.prediction.judge_tta),
        tables.FOLDS.read(snakemake.input.folds),
        threads=snakemake.threads,
        previous=tables.AUDIT.read(first) if first else None,
    )
    tables.AUDIT.write(table, snakemake.output[0])


if __name__ == "__main__":
    main()
