"""Split the chips into a test part and folds that share no scene, and measure how evenly (spread in 0-1)."""

from pathlib import Path

from cloudcover.pipeline.job import start


def main() -> None:
    params = start(snakemake)
    from cloudcover.data import tables
    from cloudcover.data.fold_balance import balance
    from cloudcover.data.folds import check, split
    from cloudcover.data.store import ChipStore
    from cloudcover.runtime.files import write_text

    index = ChipStore(Path(snakemake.input.index).parent).index.reset_index(drop=True)
    chips = index.rename(columns={"label_coverage_share": "coverage_share"})
    folds = split(chips, params.folds, params.seed)
    check(folds, chips, params.folds)
    tables.FOLDS.write(folds, snakemake.output.folds)
    write_text(snakemake.output.balance, balance(folds, chips, params.folds, params.seed).to_csv(index=False))


if __name__ == "__main__":
    main()
