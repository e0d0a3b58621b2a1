"""Pseudo-labels of one round, which of them are accepted, and how that went by location."""

from pathlib import Path

from cloudcover.pipeline.job import start


def main() -> None:
    params = start(snakemake)
    from cloudcover.config.runs import round_number
    from cloudcover.data import tables
    from cloudcover.data.store import ChipStore
    from cloudcover.predict.predictor import Predictor
    from cloudcover.pseudo_labels.churn import by_location
    from cloudcover.pseudo_labels.label import pseudo_label

    compute = params.compute
    policy = params.pseudo_labels.tta
    teachers = {
        fold: Predictor([Path(model).parent], policy, compute.device, compute.precision, compute.prediction_batch)
        for fold, model in enumerate(snakemake.input.models)
    }
    store = ChipStore(Path(snakemake.input.index).parent)
    table = pseudo_label(
        store,
        tables.MANIFEST.read(snakemake.input.manifest),
        tables.FOLDS.read(snakemake.input.folds),
        teachers,
        params.pseudo_labels,
        Path(snakemake.output.table).parent,
        Path(snakemake.input.previous[0]) if snakemake.input.previous else None,
    )
    number = round_number(snakemake.wildcards.round)
    tables.PSEUDO_LOCATIONS.write(by_location(table, store.index["location"], number), snakemake.output.locations)


if __name__ == "__main__":
    main()
