"""Trains the model of one run and fold: a model folder and its learning curve (Jaccard in 0-1)."""

from pathlib import Path

from cloudcover.job import start


def main() -> None:
    """See the module."""
    params = start(snakemake)
    from cloudcover import tables
    from cloudcover.store import Store
    from cloudcover.train.data import PseudoLabels
    from cloudcover.train.run import Recipe, train
    from cloudcover.train.select import select

    run, fold = snakemake.wildcards.run, int(snakemake.wildcards.fold)
    settings = vars(params)
    if "final" in settings:
        member = settings.pop("final").members[run.removeprefix("final/")]
        settings["model"] = settings["model"].model_copy(update=member.model_dump(exclude_none=True))
    recipe = Recipe(**settings)
    pseudo = PseudoLabels(Path(snakemake.input.pseudo), fold) if snakemake.input.pseudo else None
    selection = select(
        tables.MANIFEST.read(snakemake.input.manifest),
        tables.FOLDS.read(snakemake.input.folds),
        fold,
        pseudo.table.reset_index(drop=True) if pseudo else None,
        pseudo_weight=recipe.training.pseudo_weight,
        keep_rejected=run == "baseline",
    )
    output = Path(snakemake.output.weights).parent
    store = Store(Path(snakemake.input.index).parent)
    train(recipe, store, selection, output, Path("work/train"), run=run, fold=fold, pseudo=pseudo)


if __name__ == "__main__":
    main()
