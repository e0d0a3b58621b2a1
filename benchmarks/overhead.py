"""Time that both drivers need to find that nothing is to be done, at full scale: 11,748 chips against 1,000.

    python benchmarks/overhead.py --quick
    python benchmarks/overhead.py --repeats 5 --json overhead.json

Each layout is complete, by the preset of the full run: so many labelled chips (and 10,980 / 11,748 as many without a
label), five folds, three rounds, every file in its place, but of a few bytes. The files are declared current once, by
`snakemake --touch` and `dvc commit`; what is timed is `snakemake --dry-run` and `dvc repro`. Processor time is shown,
too: it is about what the wall time would be on an idle machine.
"""

from __future__ import annotations

import argparse
import csv
import resource
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd

from cloudcover.config.params import load
from cloudcover.runtime.files import write_json
from harness.project import ROOT, Project

FULL, SMALL = 11_748, 1_000
UNLABELLED = 10_980 / 11_748
BANDS = ("B02", "B03", "B04", "B08")


def write(path: Path, text: str) -> None:
    """Write a small file, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def declared(project: Project) -> list[str]:
    """Return the outputs that the rules declare."""
    printed = project.run("snakemake", "--quiet", "all", "--summary")
    rows = csv.DictReader(printed[printed.index("output_file") :].splitlines(), delimiter="\t")
    return [row["output_file"] for row in rows if row["output_file"]]


def lay_out(folder: Path, chips: int) -> tuple[Project, int]:
    """Create a complete run of so many labelled chips, as both drivers would leave it.

    Returns:
        The project, and the number of its files.
    """
    values: dict[str, Any] = load(ROOT / "config/presets/full.yaml").model_dump(mode="json")
    values["data"] |= {"source": "local", "path": "source"}
    project = Project(folder, values)
    ids = {"train": [f"c{i:05d}" for i in range(chips)], "test": [f"t{i:05d}" for i in range(int(chips * UNLABELLED))]}
    listed = []
    for split, names in ids.items():
        table = pd.DataFrame({"chip_id": names, "location": "x", "datetime": "", "cloudpath": ""})
        write(folder / f"source/{split}_metadata.csv", table.to_csv(index=False))
        files = [f"{split}_features/{name}/{band}.tif" for name in names for band in BANDS]
        listed += files + [f"{split}_labels/{name}.tif" for name in names if split == "train"]
    for path in listed:
        write(folder / "data/raw" / path, "x")
    project.init_dvc()
    for path in declared(project):
        write(folder / path, "x")
    shards = 1 << max(0, (chips * 2 - 1) // values["data"]["chips_per_shard"]).bit_length()
    for shard in range(shards):
        for kind in ("chips", "labels"):
            write(folder / f"data/store/{kind}-{shard:05d}.npy", f"{kind} {shard}")
    for name in ids["test"]:
        write(folder / f"data/predictions/{name}.tif", name)
    raw = pd.DataFrame({"path": listed, "bytes": 1, "sha256": "0" * 64, "origin": "x"})
    write(folder / "data/raw/files.csv", raw.to_csv(index=False))
    for table in ("audit/baseline.csv", "labels/manifest.csv", "folds.csv"):
        write(folder / "data" / table, "\n".join(f"{name},{table}" for name in ids["train"] + ids["test"]))
    project.snakemake("--touch", "--forceall", "--quiet", "all", "--", "all")
    project.run("dvc", "commit", "--force", "--quiet")
    return project, sum(1 for path in folder.rglob("*") if path.is_file() and ".dvc" not in path.parts)


def seconds(project: Project, command: list[str], expected: str) -> tuple[float, float]:
    """Measure wall and processor time of a command that has nothing to do."""
    start, used = time.perf_counter(), processor_seconds()
    printed = project.run(*command)
    taken = time.perf_counter() - start, processor_seconds() - used
    if expected not in printed:
        raise RuntimeError(f"{' '.join(command)} found something to do:\n{printed[-3000:]}")
    return taken


def processor_seconds() -> float:
    """Return the processor time of finished commands."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Run the benchmark and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one timing of each instead of --repeats")
    parser.add_argument("--repeats", type=int, default=5, help="number of timings, in turns; the median is reported")
    parser.add_argument("--seed", type=int, default=0, help="not used: nothing here is random")
    parser.add_argument("--device", default="cpu", help="not used: nothing here runs on a GPU")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    commands = {
        "dry_run": (["snakemake", "--dry-run"], "Nothing to be done"),
        "noop_repro": (["dvc", "repro"], "up to date"),
    }
    with tempfile.TemporaryDirectory() as folder:
        projects, files = {}, {}
        for chips in (SMALL, FULL):
            projects[chips], files[chips] = lay_out(Path(folder, str(chips), "project"), chips)
        taken: dict[tuple[str, int], list[tuple[float, float]]] = {}
        for _ in range(1 if arguments.quick else arguments.repeats):
            for name, (command, expected) in commands.items():
                for chips, project in projects.items():
                    taken.setdefault((name, chips), []).append(seconds(project, command, expected))
    wall, processor = ({key: median(pair[i] for pair in times) for key, times in taken.items()} for i in (0, 1))
    print("Seconds (of processor time).\n")
    print("| chips | files | `snakemake -n` | `dvc repro` |\n|---|---|---|---|")
    for chips in (SMALL, FULL):
        cells = [f"{wall[name, chips]:.1f} ({processor[name, chips]:.1f})" for name in commands]
        print(f"| {chips:,} | {files[chips]:,} | {' | '.join(cells)} |")
    if arguments.json:
        figures = {}
        for name in commands:
            figures[f"seconds_{name}"] = wall[name, FULL]
            figures[f"processor_seconds_{name}"] = processor[name, FULL]
            figures[f"ratio_{name}"] = wall[name, FULL] / wall[name, SMALL]
        write_json(arguments.json, figures)


if __name__ == "__main__":
    main()
