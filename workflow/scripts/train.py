"""Trains the model of one run and fold: a model folder and its learning curve (Jaccard in 0-1)."""

from pathlib import Path

from cloudcover.pipeline.job import start


def round_of(pseudo: str) -> int:
    """Number of the round that made the pseudo-labels `data/labels/roundN/pseudo_labels.csv`."""
    return int(Path(pseudo).parent.name.removeprefix("round"))


def main() -> None:
    """See the module."""
    params = start(snakemake)
    from cloudcover.data import tables
    from cloudcover.data.store import ChipStore
    from cloudcover.masks.pseudo import PseudoLabels
    from cloudcover.masks.truth import TrueMasks
    from cloudcover.train.run import TrainingConfig, train
    from cloudcover.train.split import select

    run, fold = snakemake.wildcards.run, int(snakemake.wildcards.fold)
    settings = vars(params)
    if "final" in settings:
        member = settings.pop("final").members[run.removeprefix("final/")]
        settings["model"] = member.override_model(settings["model"])
        settings["augmentation"] = member.override_augmentation(settings["augmentation"])
    config = TrainingConfig(**settings)
    pseudo = PseudoLabels(Path(snakemake.input.pseudo), fold) if snakemake.input.pseudo else None
    truth = TrueMasks(Path(snakemake.input.truth)) if snakemake.input.truth else None
    split = select(
        tables.MANIFEST.read(snakemake.input.manifest),
        tables.FOLDS.read(snakemake.input.folds),
        fold,
        pseudo.table.reset_index(drop=True) if pseudo else None,
        pseudo_weight=config.training.weight_of_round(round_of(snakemake.input.pseudo)) if pseudo else 1.0,
        learn_from={"baseline": "given", "oracle": "true"}.get(run, "clean"),
    )
    output = Path(snakemake.output.weights).parent
    store = ChipStore(Path(snakemake.input.index).parent)
    train(config, store, split, output, Path("work/train"), run=run, fold=fold, masks=pseudo or truth)


if __name__ == "__main__":
    main()
