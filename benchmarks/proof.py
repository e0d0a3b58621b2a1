"""The share of the cost of wrong labels that three rounds recover, on synthetic sets with known true masks.

    python benchmarks/proof.py --quick
    python benchmarks/proof.py --seeds 5 --trainings 3 --json proof.json
    python benchmarks/proof.py --chains 5 --forks --minutes 5       # on a GPU with 16 cores

Runs `workflow/proof.smk` and prints its tables: global Jaccard on the true masks of the test parts of models that learn
from all given labels (`noisy`), from what the audit leaves (`clean`), from what round 1, 2, 3 leave, pseudo-labels
included, and from the true masks (`oracle`), each the mean over sets and trainings; the share of the gap between noisy
and oracle that round 3 closes; the pseudo-labels of round 3 against the truth; and the share of wrong labels that they
replace.

Trainings run one after the other, each on all sets, and the tables are printed after each. Current results are not
run again, so the same command resumes an interrupted run.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pandas as pd

from cloudcover.config.params import load
from cloudcover.config.runs import chain
from cloudcover.runtime.files import write_json
from cloudcover.runtime.gpu_slots import SHARES
from harness.project import ROOT, TINY, Project

RUNS = {
    "noisy": "baseline",
    "clean": "round1",
    "round1": "round2",
    "round2": "round3",
    "round3": "final",
    "oracle": "oracle",
}
"""The workflow's name of each run: a round is named after the models that it trains, before their pseudo-labels."""
QUICK = {**TINY, "rounds": chain(3), "final": {"labels": "round3"}, "evaluation": {"resamples": 100}}
JOBS = 3
"""Jobs of a chain that share a GPU: two folds of a run, and another run."""


def figures(results: Path) -> dict[str, float | None]:
    """Return the fixed keys, from the tables of `workflow/proof.smk`; `gap_closed` is None if it is not determined."""
    runs = pd.read_csv(results / "runs.csv").set_index("run")
    labels = pd.read_csv(results / "labels.csv")
    last = labels[labels["round"] == labels["round"].max()].fillna({"jaccard": 1.0})
    pooled = (last["jaccard"] * last["union_pixels"]).sum() / max(1, last["union_pixels"].sum())
    return {
        **{f"jaccard_{name}": float(runs.loc[run, "jaccard"]) for name, run in RUNS.items()},
        "gap_closed": None if pd.isna(share := runs.loc[RUNS["round3"], "closed_share"]) else float(share),
        "pseudo_jaccard": float(pooled),
        "replaced_share": float(last["replaced_share"].mean()),
    }


def command(options: argparse.Namespace, trainings: int) -> list[str]:
    """Return Snakemake's command line for so many trainings of every set."""
    cores = os.cpu_count() or 1
    config = {
        "proof": options.preset,
        "seeds": options.seeds,
        "first": options.seed,
        "trainings": trainings,
        "threads": max(1, cores // options.chains),
        "gpu": JOBS,
    }
    flags = ["--cores", str(cores), "--resources", f"gpu={JOBS * options.chains}", "--quiet", "all", "--keep-going"]
    settings = [f"{name}={value}" for name, value in config.items()]
    return ["snakemake", "-s", "workflow/proof.smk", *flags, "--config", *settings, "--", "proof"]


def finished(command: list[str], folder: Path, environment: dict[str, str], seconds: float | None) -> bool:
    """Run a command; return False if it was interrupted, as by Ctrl-C, because the time was up."""
    with subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True) as process:
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGINT)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
            return False
    if status:
        raise SystemExit(f"{' '.join(command)} ended with {status}")
    return True


def main() -> None:
    """Run the experiment and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smoke test with one set of 48 small chips")
    parser.add_argument("--preset", default="proof", help="name of a preset in config/presets (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=5, help="number of sets")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the first set")
    parser.add_argument("--trainings", type=int, default=3, help="number of trainings of each set")
    parser.add_argument(
        "--chains", type=int, default=1, help="number of concurrent runs, which share the cores and the GPU"
    )
    parser.add_argument("--minutes", type=float, help="stop after this time, with the tables of finished trainings")
    parser.add_argument("--forks", action="store_true", help="run jobs in forks of one process, which saves imports")
    parser.add_argument("--device", help="auto, cpu or cuda, in place of the preset's compute.device")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    end = time.monotonic() + 60 * options.minutes if options.minutes else None
    if options.quick:
        options.seeds, options.trainings = 1, 1
    with tempfile.TemporaryDirectory() as folder:
        project = Project.at(ROOT)
        if options.quick or options.device:
            values = QUICK if options.quick else load(ROOT / f"config/presets/{options.preset}.yaml").model_dump()
            project = Project(Path(folder, "project"), values)
            if options.device:
                project.change("compute", "device", options.device)
            (project.folder / "params.yaml").replace(project.folder / f"config/presets/{options.preset}.yaml")
        environment = {SHARES: str(JOBS * options.chains), **project.environment(forks=options.forks)}
        found: dict[str, float | None] = {}
        for trainings in range(1, options.trainings + 1):
            left = max(0.0, end - time.monotonic()) if end else None
            if not finished(command(options, trainings), project.folder, environment, left):
                print(f"the time is up in training {trainings} of {options.trainings}")
                break
            found = figures(project.folder / "reports" / options.preset)
    for name, value in found.items():
        print(f"{name:16} {'not determined' if value is None else f'{value:.4f}'}")
    if options.json:
        write_json(options.json, found)


if __name__ == "__main__":
    main()
