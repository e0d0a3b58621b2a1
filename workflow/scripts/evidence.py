"""Gather evidence about labels that needs no network: colours, and the trees' probabilities (bytes, round(p x 255))."""

from pathlib import Path

from cloudcover.pipeline.job import start


def main() -> None:
    params = start(snakemake)
    from cloudcover.data import tables
    from cloudcover.data.store import ChipStore
    from cloudcover.labels.evidence import gather_evidence
    from cloudcover.runtime.arrays import create_array
    from cloudcover.runtime.files import atomic

    store, folds = ChipStore(Path(snakemake.input.index).parent), tables.FOLDS.read(snakemake.input.folds)
    evidence, votes = gather_evidence(store, folds, params.seed, snakemake.threads)
    with atomic(snakemake.output.votes) as part:
        create_array(part, votes.dtype, votes.shape)[:] = votes
    tables.EVIDENCE.write(evidence, snakemake.output.evidence)


if __name__ == "__main__":
    main()
