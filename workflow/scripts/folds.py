"""Splits the chips into folds that share no scene, and tells how evenly (spread in 0-1, beside plain shuffles)."""

from pathlib import Path

from cloudcover.pipeline.job import start


def main() -> None:
    params = start(snakemake)
    from cloudcover.data import tables
    from cloudcover.data.fold_balance import balance
    from cloudcover.data.folds import check, split
    from cloudcover.data.store import ChipStore
    from cloudcover.runtime.files import write_text

    index = ChipStore(Path(snakemake.input.index).parent).index
    verdicts = tables.MANIFEST.read(snakemake.input.manifest).set_index("chip_id")["verdict"]
    coverage = index["label_coverage_share"].where(
        verdicts.loc[index.index] == "clean"
    )  # a wrong label tells no coverage
    chips = index[["chip_id", "location", "datetime"]].assign(coverage_share=coverage).reset_index(drop=True)
    folds = split(chips, params.folds, params.seed)
    check(folds, chips, params.folds)
    tables.FOLDS.write(folds, snakemake.output.folds)
    write_text(snakemake.output.balance, balance(folds, chips, params.folds, params.seed).to_csv(index=False))


if __name__ == "__main__":
    main()
