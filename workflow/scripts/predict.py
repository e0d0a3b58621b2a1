"""Held-out probabilities of one run (bytes, round(p x 255)): of each fold by its model, of the test part by all models."""

from pathlib import Path

from cloudcover.pipeline.job import start


def main() -> None:
    params = start(snakemake)
    from cloudcover.data import tables
    from cloudcover.data.folds import TEST
    from cloudcover.data.store import ChipStore
    from cloudcover.pipeline.paths import fold_of
    from cloudcover.predict.oof import predict_oof

    store = ChipStore(Path(snakemake.input.index).parent)
    folds = tables.FOLDS.read(snakemake.input.folds)
    folders = [Path(model).parent for model in snakemake.input.models]
    models = {**{fold_of(folder): [folder] for folder in folders}, TEST: folders}
    for part in ("oof", "test"):
        chips = folds[(folds["fold"] == TEST) == (part == "test")]
        policies = [Path(array).stem for array in snakemake.output[f"{part}_arrays"]]
        predict_oof(store, chips, models, policies, params.compute, Path(snakemake.output[part]).parent)


if __name__ == "__main__":
    main()
