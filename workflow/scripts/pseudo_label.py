"""Judge every label by a round, relabel what is rejected or unlabelled, and count it by location."""

from pathlib import Path

from cloudcover.pipeline.job import start


def main() -> None:
    params = start(snakemake)
    from cloudcover.config.runs import is_round, round_number
    from cloudcover.data import tables
    from cloudcover.data.store import ChipStore
    from cloudcover.labels.manifest import build_manifest
    from cloudcover.masks.out_of_fold import OutOfFold
    from cloudcover.masks.pseudo import PseudoLabels
    from cloudcover.pseudo_labels.churn import by_location
    from cloudcover.pseudo_labels.label import pseudo_label

    store = ChipStore(Path(snakemake.input.index).parent)
    folds = tables.FOLDS.read(snakemake.input.folds)
    audit = tables.AUDIT.read(snakemake.input.audit) if snakemake.input.audit else None
    verdicts = tables.VERDICTS.read(snakemake.input.verdicts)
    previous = Path(snakemake.input.previous[0])
    table = pseudo_label(
        store,
        build_manifest(audit, verdicts, store.index, folds, params.labels),
        folds,
        OutOfFold([Path(snakemake.input.oof).parent]),
        params.prediction.judge_tta,
        params.pseudo_labels,
        params.data.nodata,
        Path(snakemake.output.manifest).parent,
        PseudoLabels(previous) if is_round(previous.parent.name) else None,
    )
    number = round_number(snakemake.wildcards.round)
    tables.PSEUDO_LOCATIONS.write(by_location(table, store.index["location"], number), snakemake.output.locations)


if __name__ == "__main__":
    main()
