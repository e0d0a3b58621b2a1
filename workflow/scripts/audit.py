"""Gives every label a suspicion in 0-1 with its reasons."""

from pathlib import Path

from cloudcover.pipeline.job import start


def main() -> None:
    params = start(snakemake)
    from cloudcover.data import tables
    from cloudcover.data.store import ChipStore
    from cloudcover.labels.audit import audit
    from cloudcover.train.run import TrainingConfig

    settings = vars(params)
    settings_of_audit = settings.pop("audit")
    store = ChipStore(Path(snakemake.input.index).parent)
    workers = 1 if snakemake.resources.gpu else snakemake.threads
    result = audit(store, TrainingConfig(**settings), settings_of_audit, Path("work/audit"), workers)
    tables.AUDIT.write(result, snakemake.output[0])


if __name__ == "__main__":
    main()
