"""Out-of-fold probabilities of one run, per test-time augmentation policy (bytes, round(p x 255))."""

from pathlib import Path

from cloudcover.pipeline.job import start


def main() -> None:
    """See the module."""
    params = start(snakemake)
    from cloudcover.data import tables
    from cloudcover.data.store import ChipStore
    from cloudcover.predict.oof import predict_oof

    folders = [Path(model).parent for model in snakemake.input.models]
    models = {int(folder.name.removeprefix("fold")): [folder] for folder in folders}
    folds = tables.FOLDS.read(snakemake.input.folds)
    final = snakemake.wildcards.run.startswith("final/")
    policies = params.evaluation.final_tta if final else params.evaluation.tta
    out = Path(snakemake.output[0]).parent
    predict_oof(ChipStore(Path(snakemake.input.index).parent), folds, models, policies, params.compute, out)


if __name__ == "__main__":
    main()
