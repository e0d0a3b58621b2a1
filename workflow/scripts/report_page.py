"""Write the report: one self-contained HTML page with every figure of the run."""

from pathlib import Path

from cloudcover.pipeline.job import start


def main() -> None:
    params = start(snakemake)
    from cloudcover.evaluate.runs import judged_runs
    from cloudcover.masks.out_of_fold import BundleMasks
    from cloudcover.pipeline.paths import run_folders
    from cloudcover.report.page import render_page
    from cloudcover.report.results import read_results
    from cloudcover.runtime.files import write_text

    folders = run_folders(snakemake.input.predictions)
    bundle = BundleMasks(Path(snakemake.input.bundle))
    *_, final = judged_runs(snakemake.params.runs, folders, bundle, params.prediction, params.evaluation.threshold)
    write_text(snakemake.output[0], render_page(read_results(dict(snakemake.input.items()), final.masks), params))


if __name__ == "__main__":
    main()
