"""Fetch the configured source to `data/raw` and list its files; true masks of a synthetic set go to `data/truth`."""

from pathlib import Path

from cloudcover.pipeline.job import start


def main() -> None:
    params = start(snakemake)
    from cloudcover.sources.fetch import fetch

    raw, truth = Path(snakemake.output.manifest).parent, Path(snakemake.output.truth).parent
    fetch(params.data, params.synthetic, params.seed, raw, truth, snakemake.threads)


if __name__ == "__main__":
    main()
