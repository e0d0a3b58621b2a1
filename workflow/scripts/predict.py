"""Held-out probabilities of one run (bytes, round(p x 255)): of each fold by its model, of the test part by all models.

Without a test part the figures are of all chips, each by its fold's model.
"""

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
    test = folds["fold"] == TEST
    for part, chips in (("oof", folds[~test]), ("test", folds[test] if test.any() else folds)):
        policies = [Path(array).stem for array in snakemake.output[f"{part}_arrays"]]
        predict_oof(store, chips, models, policies, params.compute, Path(snakemake.output[part]).parent)


if __name__ == "__main__":
    main()
