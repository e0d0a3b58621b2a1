"""Out-of-fold probabilities of one run, per test-time augmentation policy (bytes, round(p x 255))."""

from pathlib import Path

from cloudcover.pipeline.job import start


def main() -> None:
    params = start(snakemake)
    from cloudcover.data import tables
    from cloudcover.data.store import ChipStore
    from cloudcover.pipeline.paths import fold_of
    from cloudcover.predict.oof import predict_oof

    folders = [Path(model).parent for model in snakemake.input.models]
    models = {fold_of(folder): [folder] for folder in folders}
    folds = tables.FOLDS.read(snakemake.input.folds)
    policies = [Path(array).stem for array in snakemake.output.arrays]
    out = Path(snakemake.output.index).parent
    predict_oof(ChipStore(Path(snakemake.input.index).parent), folds, models, policies, params.compute, out)


if __name__ == "__main__":
    main()
