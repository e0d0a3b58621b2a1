"""Train the model of one run and fold: a model folder and its learning curve (Jaccard in 0-1)."""

from pathlib import Path

from cloudcover.pipeline.job import start


def main() -> None:
    params = start(snakemake)
    from cloudcover.config.runs import BASELINE, ORACLE, is_round, member_of, round_number
    from cloudcover.config.training import TrainingConfig
    from cloudcover.data import tables
    from cloudcover.data.store import ChipStore
    from cloudcover.masks.pseudo import PseudoLabels
    from cloudcover.masks.truth import TrueMasks
    from cloudcover.train.run import train
    from cloudcover.train.split import all_labels, select

    run, fold = snakemake.wildcards.run, int(snakemake.wildcards.fold)
    config = TrainingConfig.of(params)
    if member := member_of(run):
        config = config.for_member(params.final.members[member])
    store = ChipStore(Path(snakemake.input.index).parent)
    weight, masks = 1.0, None
    if run in (BASELINE, ORACLE):
        labels = all_labels(store.index, "true" if run == ORACLE else "human")
        masks = TrueMasks(Path(snakemake.input.truth)) if run == ORACLE else None
    else:
        manifest = Path(snakemake.input.labels[0])
        labels = tables.MANIFEST.read(manifest)
        if is_round(name := manifest.parent.name):
            weight, masks = config.training.weight_of_round(round_number(name)), PseudoLabels(manifest)
    doubt = config.training.doubt_weight and run not in (BASELINE, ORACLE)
    split = select(labels, tables.FOLDS.read(snakemake.input.folds), fold, weight, doubt_weight=doubt)
    output, history = Path(snakemake.output.weights).parent, Path(snakemake.output.history)
    train(config, store, split, output, Path("work/train"), run=run, fold=fold, masks=masks, history=history)


if __name__ == "__main__":
    main()
