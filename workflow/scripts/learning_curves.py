"""Collect the validated epochs of all learning curves in one table (loss, Jaccard in 0-1, seconds)."""

from pathlib import Path

from cloudcover.pipeline.job import start


def main() -> None:
    start(snakemake)
    import pandas as pd

    from cloudcover.data import tables
    from cloudcover.pipeline.paths import fold_of, run_of_curve
    from cloudcover.runtime.files import write_text

    frames = []
    for path in map(Path, snakemake.input):
        validated = tables.HISTORY.read(path).dropna(subset="validation_jaccard")  # plots show an empty cell as zero
        frames.append(validated.assign(run=run_of_curve(path), fold=fold_of(path)))
    write_text(snakemake.output[0], pd.concat(frames).to_csv(index=False))


if __name__ == "__main__":
    main()
