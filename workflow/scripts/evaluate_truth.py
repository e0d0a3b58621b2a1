"""Figures against true masks, where the source knows them: audit, pseudo-labels and models."""

from pathlib import Path

from cloudcover.pipeline.job import start


def main() -> None:
    """See the module."""
    params = start(snakemake)
    from cloudcover.data import tables
    from cloudcover.evaluate.summary import load_runs
    from cloudcover.evaluate.truth import evaluate_truth
    from cloudcover.runtime.files import write_json

    runs = load_runs([Path(path).parent for path in snakemake.input.oof], snakemake.params.runs)
    figures, counts = evaluate_truth(
        Path(snakemake.input.truth),
        Path(snakemake.input.index).parent,
        Path(snakemake.input.manifest),
        Path(snakemake.input.audit) if snakemake.input.audit else None,
        runs,
        [Path(path) for path in snakemake.input.pseudo],
        params.evaluation,
        params.seed,
    )
    write_json(snakemake.output.figures, figures)
    tables.COUNTS.write(counts, snakemake.output.chips)


if __name__ == "__main__":
    main()
