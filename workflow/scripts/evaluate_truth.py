"""Figures against true masks, where the source knows them: audit, pseudo-labels and models."""

from pathlib import Path

from cloudcover.pipeline.job import start


def main() -> None:
    params = start(snakemake)
    from cloudcover.data import tables
    from cloudcover.data.store import ChipStore
    from cloudcover.evaluate.summary import load_runs
    from cloudcover.evaluate.truth import evaluate_truth
    from cloudcover.masks.pseudo import by_student
    from cloudcover.masks.truth import TrueMasks
    from cloudcover.runtime.files import write_json

    figures, counts = evaluate_truth(
        TrueMasks(Path(snakemake.input.truth)),
        ChipStore(Path(snakemake.input.index).parent),
        tables.MANIFEST.read(snakemake.input.manifest),
        tables.AUDIT.read(snakemake.input.audit) if snakemake.input.audit else None,
        load_runs([Path(path).parent for path in snakemake.input.oof], snakemake.params.runs),
        {path.parent.name: by_student(path) for path in map(Path, snakemake.input.pseudo)},
        params.evaluation,
        params.seed,
    )
    write_json(snakemake.output.figures, figures)
    tables.COUNTS.write(counts, snakemake.output.chips)


if __name__ == "__main__":
    main()
