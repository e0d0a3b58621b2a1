"""Trains the model of one run and fold: a model folder and its learning curve (Jaccard in 0-1)."""

from pathlib import Path

from cloudcover.pipeline.job import start


def main() -> None:
    params = start(snakemake)
    from cloudcover.config.runs import member_of, round_number
    from cloudcover.config.training import TrainingConfig
    from cloudcover.data import tables
    from cloudcover.data.store import ChipStore
    from cloudcover.masks.pseudo import PseudoLabels
    from cloudcover.masks.truth import TrueMasks
    from cloudcover.train.run import train
    from cloudcover.train.split import select

    run, fold = snakemake.wildcards.run, int(snakemake.wildcards.fold)
    config = TrainingConfig.of(params)
    if member := member_of(run):
        config = config.for_member(params.final.members[member])
    learned = Path(snakemake.input.pseudo[0]) if snakemake.input.pseudo else None
    pseudo = PseudoLabels(learned, fold) if learned else None
    truth = TrueMasks(Path(snakemake.input.truth)) if snakemake.input.truth else None
    split = select(
        tables.MANIFEST.read(snakemake.input.manifest),
        tables.FOLDS.read(snakemake.input.folds),
        fold,
        pseudo.table.reset_index(drop=True) if pseudo else None,
        pseudo_weight=config.training.weight_of_round(round_number(learned.parent.name)) if learned else 1.0,
        learn_from={"baseline": "given", "oracle": "true"}.get(run, "clean"),
    )
    output = Path(snakemake.output.weights).parent
    store = ChipStore(Path(snakemake.input.index).parent)
    train(
        config, store, split, output, Path("work/train"), run=run, fold=fold, masks=pseudo or truth,
        history=Path(snakemake.output.history),
    )  # fmt: skip


if __name__ == "__main__":
    main()
