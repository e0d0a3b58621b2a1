"""How well the audit finds wrong labels, against sorting labels by out-of-fold IoU and by cleanlab's scores.

    python -m venv .venv/cleanlab && .venv/cleanlab/bin/pip install cleanlab==2.9.0
    python benchmarks/audit.py --quick
    python benchmarks/audit.py --seed 1 --repeats 5 --json audit.json
    python benchmarks/audit.py --seed 1000 --repeats 6 --fit
    python benchmarks/audit.py --rate

Makes synthetic sets whose wrong labels are known (330 chips of 128 pixels in 33 scenes), audits them, and prints for
each way the average precision and the recall at the estimated rate: as many labels are rejected as the audit estimates
to be wrong, without knowing the truth. Then the recall of each kind of error. Every set is made and audited afresh.

- `audit`: the suspicion;
- `low_iou`: 1 - IoU of label and out-of-fold prediction by the audit's own models, both passes;
- `network_iou`: 1 - IoU of label and out-of-fold prediction by a network in one pass, as the challenge's winners did;
- `cleanlab`: cleanlab's segmentation scores of that network. cleanlab is AGPL, hence the environment of its own (line
  1); without it the column is left out.

`--fit` prints the weights of `cloudcover.labels.score` fitted on these sets; use other seeds to measure than to fit.
`--rate` prints chips of 512 pixels per second of the evidence that needs no network, on one core and on two.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from audit_rate import rates
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.metrics import average_precision_score

from cloudcover.config.params import Params
from cloudcover.config.training import TrainingConfig
from cloudcover.data import tables
from cloudcover.data.chips import IGNORE_INDEX
from cloudcover.data.label_errors import LABEL_ERRORS
from cloudcover.data.pack import pack
from cloudcover.data.store import ChipStore
from cloudcover.labels.audit import audit
from cloudcover.labels.score import WEIGHTS, estimated_error_share, features, judge
from cloudcover.masks.overlap import iou
from cloudcover.predict.predictor import Predictor
from cloudcover.runtime.files import write_json
from cloudcover.sources.fetch import fetch

CLEAN = "none"
LEAST_WEIGHT, MOST_WEIGHT = 0.2, 2.0
ROOT = Path(__file__).resolve().parents[1]
CLEANLAB = ROOT / ".venv/cleanlab/bin/python"


def audited(params: Params, folder: Path) -> pd.DataFrame:
    """Makes a set in `folder` and audits it: `tables.AUDIT` with `error`, `seconds` and the columns of `others`."""
    raw, truth = folder / "raw", folder / "truth"
    fetch(params.data, params.synthetic, params.seed, raw, truth)
    pack(raw, folder / "store", folder / "quarantine.csv", params.data)
    config = TrainingConfig(
        params.seed, params.data, params.folds, params.input, params.model, params.training, params.augmentation,
        params.compute,
    )  # fmt: skip
    start = time.perf_counter()
    store = ChipStore(folder / "store")
    table = audit(store, config, params.audit, folder / "work")
    seconds = time.perf_counter() - start
    errors = tables.TRUTH.read(truth / "manifest.csv").set_index("chip_id")["error"]
    table = table.assign(error=errors.loc[table["chip_id"]].replace("", CLEAN).to_numpy(), seconds=seconds)
    return table.assign(**others(store, table, folder / "work"))


def others(store: ChipStore, table: pd.DataFrame, work: Path) -> dict[str, NDArray[np.float64]]:
    """What others go by, from the networks of the first pass: the IoU, and cleanlab's score where it is installed."""
    cloud = np.zeros((len(table), *store.labels(table["chip_id"].tolist()[:1]).shape[1:]), np.float32)
    labels = store.labels(table["chip_id"].tolist())
    for fold, rows in table.groupby("audit_fold").indices.items():
        first = min(work.glob(f"fold{fold}-*"), key=lambda f: (f / "model.safetensors").stat().st_mtime)
        chip_ids = table["chip_id"].to_numpy()[rows].tolist()
        cloud[rows] = Predictor([first], device="cpu").probabilities(store.chips(chip_ids), store.percentiles(chip_ids))
    columns = {"first_iou": iou((cloud > 0.5) & (labels != IGNORE_INDEX), labels == 1)}
    if CLEANLAB.exists():
        np.savez(work / "arrays.npz", labels=np.where(labels == IGNORE_INDEX, cloud > 0.5, labels), cloud=cloud)
        script = ROOT / "benchmarks/baselines/cleanlab_scores.py"
        subprocess.run([CLEANLAB, script, work / "arrays.npz", work / "scores.npy"], check=True, capture_output=True)
        columns["cleanlab"] = np.load(work / "scores.npy")
    return columns


def scores(table: pd.DataFrame) -> dict[str, NDArray[np.float64]]:
    """The scores by which each way sorts labels, high = suspicious."""
    ways = {
        "audit": table["suspicion"],
        "low_iou": 1 - table["oof_iou"],
        "network_iou": 1 - table["first_iou"],
    }
    if "cleanlab" in table:
        ways["cleanlab"] = 1 - table["cleanlab"]
    return {name: score.to_numpy(np.float64) for name, score in ways.items()}


def rejected(score: NDArray[np.float64], number: int) -> NDArray[np.bool_]:
    """The `number` highest scores."""
    chosen = np.zeros(len(score), bool)
    chosen[np.argsort(-score, kind="stable")[:number]] = True
    return chosen


def measure(table: pd.DataFrame) -> tuple[dict[str, float], pd.DataFrame]:
    """The figures of one set, and a row per chip: error, and whether each way rejects it at the estimated rate."""
    wrong = (table["error"] != CLEAN).to_numpy()
    rate = estimated_error_share(table)
    number = round(rate * len(table))
    figures = {
        "rate_true": float(wrong.mean()),
        "rate_estimated": rate,
        "seconds_audit": float(table["seconds"].iloc[0]),
    }
    chips = pd.DataFrame({"error": table["error"]})
    for name, score in scores(table).items():
        chips[name] = rejected(score, number)
        figures[f"ap_{name}"] = float(average_precision_score(wrong, score)) if wrong.any() else float("nan")
        figures[f"recall_at_rate_{name}"] = float(chips[name][wrong].mean()) if wrong.any() else float("nan")
    # At the threshold of the manifest: how many right labels are lost.
    above = table["suspicion"].to_numpy() > 0.5
    figures["rejected_share"] = float(above.mean())
    figures["rejected_right_share"] = float(above[~wrong].mean())
    return figures, chips


def _bounds(name: str) -> tuple[float, float]:
    if name in (*LABEL_ERRORS, "odd_colours"):
        return LEAST_WEIGHT, MOST_WEIGHT
    return (0, MOST_WEIGHT) if WEIGHTS[name] > 0 else (-MOST_WEIGHT, 0)


def fit(sets: list[pd.DataFrame]) -> None:
    """Prints weights for `cloudcover.labels.score`: ridge logistic regression with bounds.

    Each weight keeps its sign, a kind of error counts at least `LEAST_WEIGHT`, and nothing more than `MOST_WEIGHT`:
    what helps on synthetic chips must not decide alone on real ones, nor become a reason to trust a label.
    """
    x = pd.concat([features(t) for t in sets])
    wrong = pd.concat([t["error"] != CLEAN for t in sets]).to_numpy(np.float64)
    design = np.column_stack([x.to_numpy(np.float64), np.ones(len(x))])

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        z = design @ weights
        ridge = np.append(weights[:-1], 0)
        value = np.sum(np.logaddexp(0, z) - wrong * z) + ridge @ ridge / 2
        return float(value), design.T @ (expit(z) - wrong) + ridge

    bounds = [_bounds(name) for name in x.columns]
    result = minimize(loss, np.zeros(design.shape[1]), jac=True, method="L-BFGS-B", bounds=[*bounds, (-np.inf, np.inf)])
    print(f"\nPRIOR = {wrong.mean():.3f}\nINTERCEPT = {result.x[-1]:.2f}\nWEIGHTS = {{")
    for name, weight in zip(x.columns, result.x, strict=False):
        print(f'    "{name}": {weight:.2f},')
    print("}")


def main() -> None:
    """Prints the tables and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="sets of 160 chips of 96 pixels")
    parser.add_argument("--demo", action="store_true", help="sets of the demo's size")
    parser.add_argument("--chips", type=int, default=330, help="chips of a set (%(default)s)")
    parser.add_argument("--scenes", type=int, default=33, help="scenes of a set (%(default)s)")
    parser.add_argument("--size", type=int, default=128, help="side of a chip [pixels] (%(default)s)")
    parser.add_argument("--errors", type=float, help="share of wrong labels (0.145)")
    parser.add_argument("--seed", type=int, default=0, help="of the first set; the next sets have the next ones")
    parser.add_argument("--repeats", type=int, default=1, help="number of sets")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--threads", type=int, help="threads of the CPU")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--fit", action="store_true", help="print weights fitted on these sets")
    parser.add_argument("--rate", action="store_true", help="print chips per second of what needs no network")
    parser.add_argument("--keep", type=Path, help="keep the audits' tables in this folder; those there are judged anew")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.rate:
        print(rates(args.seed).round(3).to_string(index=False))
        return
    defaults = Params()
    chips, scenes, size = (160, 30, 96) if args.quick else (args.chips, args.scenes, args.size)
    if args.demo:
        chips, scenes, size = defaults.synthetic.chips, defaults.synthetic.scenes, defaults.data.chip_size
    changes: dict[str, float] = {"chips": chips, "scenes": scenes}
    if args.errors is not None:
        changes["label_errors"] = args.errors
    synthetic = defaults.synthetic.model_copy(update=changes)
    sets, figures, verdicts = [], [], []
    for seed in range(args.seed, args.seed + args.repeats):
        params = defaults.model_copy(
            update={
                "seed": seed,
                "data": defaults.data.model_copy(update={"chip_size": size}),
                "synthetic": synthetic,
                "compute": defaults.compute.model_copy(update={"device": args.device}),
            }
        )
        kept = args.keep / f"audit-{seed}.csv" if args.keep else None
        if kept and kept.exists():
            table = judge(pd.read_csv(kept, keep_default_na=False, na_values=[""]))
        else:
            with tempfile.TemporaryDirectory() as folder:
                table = audited(params, Path(folder))
            if kept:
                kept.parent.mkdir(parents=True, exist_ok=True)
                table.to_csv(kept, index=False)
        sets.append(table)
        one, rejects = measure(table)
        figures.append({"seed": seed, **one})
        verdicts.append(rejects)
        print(pd.DataFrame(figures[-1:]).round(3).to_string(index=False, header=len(figures) == 1), flush=True)
    mean = pd.DataFrame(figures).drop(columns="seed").mean()
    all_verdicts = pd.concat(verdicts)
    kinds = all_verdicts.groupby("error").mean()
    kinds.insert(0, "labels", all_verdicts.groupby("error").size())
    print(f"\nmean of {args.repeats} sets\n{mean.round(3).to_string()}")
    print(f"\nshare rejected at the estimated rate, by kind of error\n{kinds.round(3).to_string()}")
    if args.fit:
        fit(sets)
    if args.json:
        by_kind = {f"recall_{kind}": float(share) for kind, share in kinds["audit"].items() if kind != CLEAN}
        write_json(args.json, {**{k: v for k, v in mean.items() if pd.notna(v)}, **by_kind})


if __name__ == "__main__":
    main()
