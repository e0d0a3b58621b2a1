"""The report: one self-contained HTML page with every figure of the run."""

from pathlib import Path

from cloudcover.pipeline.job import start


def main() -> None:
    """See the module."""
    params = start(snakemake)
    from cloudcover.report.page import write_report

    write_report(dict(snakemake.input.items()), params, Path(snakemake.output[0]))


if __name__ == "__main__":
    main()
