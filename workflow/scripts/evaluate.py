"""Figures of all runs on clean labels of held-out scenes: Jaccard from sums (0-1), 95 % intervals by location."""

from pathlib import Path

from cloudcover.pipeline.job import start


def main() -> None:
    params = start(snakemake)
    from cloudcover.data import tables
    from cloudcover.data.store import ChipStore
    from cloudcover.evaluate.calibrate.calibration import Calibration
    from cloudcover.evaluate.summary import FINAL, evaluate, load_runs, write_comparisons, write_tables
    from cloudcover.runtime.files import read_json, write_json

    store = ChipStore(Path(snakemake.input.index).parent)
    manifest = tables.MANIFEST.read(snakemake.input.manifest)
    runs = load_runs([Path(path).parent for path in snakemake.input.oof], snakemake.params.runs)
    pseudo = {Path(path).parent.name: tables.PSEUDO.read(path) for path in snakemake.input.pseudo}
    metrics, counts = evaluate(store, manifest, runs, pseudo, params.evaluation, params.seed)
    metrics["calibration"] = Calibration.model_validate(read_json(snakemake.input.calibration)).figures()
    output = snakemake.output
    write_tables(counts, output.chips, output.locations, output.scenes)
    write_comparisons(counts, runs[FINAL], params.evaluation, params.seed, dict(output.items()))
    write_json(output.metrics, metrics)


if __name__ == "__main__":
    main()
