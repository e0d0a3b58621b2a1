"""The report: one self-contained HTML page with every figure of the run."""

from cloudcover.pipeline.job import start


def main() -> None:
    params = start(snakemake)
    from cloudcover.report.page import render_page
    from cloudcover.report.results import read_results
    from cloudcover.runtime.files import write_text

    write_text(snakemake.output[0], render_page(read_results(dict(snakemake.input.items())), params))


if __name__ == "__main__":
    main()
