"""Write the ablation's tables and plot: gain of each member over the first, and of TTA policies over vflip (0-1)."""

from pathlib import Path

from cloudcover.pipeline.job import start

REFERENCE = "final/flips"


def main() -> None:
    start(snakemake)
    from cloudcover.config.params import load
    from cloudcover.evaluate.gap import gains, replicates
    from cloudcover.evaluate.proof import chain_folders, plot_gains, read_counts
    from cloudcover.evaluate.runs import ENSEMBLE
    from cloudcover.runtime.files import write_text

    evaluation = load(snakemake.input.preset).evaluation
    folders = chain_folders(snakemake.input.truth)
    counts = read_counts(folders)
    ensemble = counts["run"] == ENSEMBLE
    tables = {
        "members": gains(replicates(counts[~ensemble], "run", evaluation.resamples), REFERENCE),
        "tta": gains(replicates(counts[ensemble], "tta", evaluation.resamples), "vflip", over="tta"),
    }
    for name, table in tables.items():
        write_text(snakemake.output[name], table.to_csv(index=False))
        print(f"\n{table.round(4).to_string(index=False)}")
    titles = {f"over {REFERENCE}": tables["members"], "mean of the members, over vflip": tables["tta"]}
    plot_gains(titles, Path(snakemake.output.plot))


if __name__ == "__main__":
    main()
