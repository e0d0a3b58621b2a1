"""Decide which labels are clean: the label-cleaning manifest, from the first judgement and human verdicts."""

from pathlib import Path

from cloudcover.pipeline.job import start


def main() -> None:
    params = start(snakemake)
    from cloudcover.data import tables
    from cloudcover.data.store import ChipStore
    from cloudcover.labels.manifest import build_manifest

    audit = tables.AUDIT.read(snakemake.input.audit) if snakemake.input.audit else None
    verdicts = tables.VERDICTS.read(snakemake.input.verdicts)
    folds = tables.FOLDS.read(snakemake.input.folds)
    index = ChipStore(Path(snakemake.input.index).parent).index
    tables.MANIFEST.write(build_manifest(audit, verdicts, index, folds, params.labels), snakemake.output[0])


if __name__ == "__main__":
    main()
