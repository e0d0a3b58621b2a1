"""What three rounds of pseudo-labels win back of what wrong labels cost, on synthetic sets whose truth is known.

    python benchmarks/proof.py --quick
    python benchmarks/proof.py --seeds 5 --json proof.json

Runs `workflow/proof.smk` (what is current is not run again) and prints the figures of its tables: global Jaccard on
the true masks of the test parts, all sets together, of models that learn from all given labels (`noisy`), from what
the audit leaves (`clean`), from what round 1, 2, 3 leave, pseudo-labels included, and from the true masks
(`oracle`); the share of the gap between noisy and oracle that round 3 closes; the pseudo-labels of round 3 against the
truth; and the share of wrong labels that they replace.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

from cloudcover.config.params import load
from cloudcover.config.runs import chain
from cloudcover.runtime.files import write_json

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from project import TINY, Project  # noqa: E402

RUNS = {
    "noisy": "baseline",
    "clean": "round1",
    "round1": "round2",
    "round2": "round3",
    "round3": "final",
    "oracle": "oracle",
}
"""The workflow's name of each run: a round is named by the models that it trains, before their pseudo-labels."""
QUICK = {**TINY, "rounds": chain(3), "final": {"labels": "round3"}, "evaluation": {"resamples": 100}}


def figures(results: Path) -> dict[str, float]:
    """The fixed keys, from the tables of `workflow/proof.smk`."""
    runs = pd.read_csv(results / "runs.csv").set_index("run")
    labels = pd.read_csv(results / "labels.csv")
    last = labels[labels["round"] == labels["round"].max()].fillna({"jaccard": 1.0})
    pooled = (last["jaccard"] * last["union_pixels"]).sum() / max(1, last["union_pixels"].sum())
    return {
        **{f"jaccard_{name}": float(runs.loc[run, "jaccard"]) for name, run in RUNS.items()},
        "gap_closed": float(runs.loc[RUNS["round3"], "closed_share"]),
        "pseudo_jaccard": float(pooled),
        "replaced_share": float(last["replaced_share"].mean()),
    }


def main() -> None:
    """Runs the experiment and prints its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one set of 48 small chips: whether it runs, no proof")
    parser.add_argument("--seeds", type=int, default=5, help="number of sets")
    parser.add_argument("--seed", type=int, default=0, help="of the first set")
    parser.add_argument("--device", help="auto, cpu or cuda, in place of the preset's compute.device")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        project = Project.at(ROOT)
        preset = load(ROOT / "config/presets/proof.yaml").model_dump(mode="json")
        if options.quick or options.device:
            project = Project(Path(folder, "project"), QUICK if options.quick else preset)
            if options.device:
                project.change("compute", "device", options.device)
            (project.folder / "params.yaml").replace(project.folder / "config/presets/proof.yaml")
        command = ["snakemake", "-s", "workflow/proof.smk", "--cores", "all", "--resources", "gpu=1", "--quiet", "all"]
        config = ["--config", f"seeds={1 if options.quick else options.seeds}", f"first={options.seed}"]
        subprocess.run([*command, *config, "--", "proof"], cwd=project.folder, env=project.environment(), check=True)
        found = figures(project.folder / "reports/proof")
    for name, value in found.items():
        print(f"{name:16} {value:.4f}")
    if options.json:
        write_json(options.json, found)


if __name__ == "__main__":
    main()
