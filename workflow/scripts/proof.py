"""Write the proof's tables and plot: Jaccard of each run on true masks, and its closed share of the gap (0-1)."""

from pathlib import Path

from cloudcover.pipeline.job import start


def main() -> None:
    start(snakemake)
    import pandas as pd

    from cloudcover.config.params import load
    from cloudcover.evaluate.gap import closed_gap, replicates
    from cloudcover.evaluate.proof import chain_folders, label_table, plot, read_counts, steps
    from cloudcover.evaluate.runs import ENSEMBLE
    from cloudcover.runtime.files import write_text

    evaluation = load(snakemake.input.preset).evaluation
    folders = chain_folders(snakemake.input.truth)
    counts = read_counts(folders)
    found = replicates(counts[counts["run"] != ENSEMBLE], resamples=evaluation.resamples)
    tables: dict[str, pd.DataFrame] = {
        "runs": closed_gap(found),
        "steps": steps(found),
        "chains": found.chains.reset_index(),
        "labels": label_table(folders),
    }
    for name, table in tables.items():
        write_text(snakemake.output[name], table.to_csv(index=False))
        print(f"\n{table.round(4).to_string(index=False)}")
    plot(tables["runs"], found.chains, Path(snakemake.output.plot))


if __name__ == "__main__":
    main()
