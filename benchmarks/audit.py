"""How well the audit finds wrong labels, compared with sorting labels by out-of-fold IoU and by cleanlab's scores.

    python -m venv .venv/cleanlab && .venv/cleanlab/bin/pip install cleanlab==2.9.0
    python benchmarks/audit.py --quick
    python benchmarks/audit.py --seed 1 --repeats 5 --jobs 5 --json audit.json
    python benchmarks/audit.py --seed 1000 --repeats 6 --jobs 6 --fit src/cloudcover/labels/weights.py
    python benchmarks/audit.py --rate

Creates synthetic sets whose wrong labels are known, and runs the workflow's judgement of labels on each: train a
baseline on all given labels, predict it out of fold, judge the labels, train round 1 on the labels that are left,
predict it out of fold, judge the labels again. Prints for each score the average precision and the recall at the
estimated rate: as many labels are rejected as the audit estimates to be wrong, without knowing the truth. Then the
recall of each kind of error.

- `audit`: suspicion after round 1;
- `first`: suspicion by the baseline;
- `low_iou`: 1 - IoU of label and the baseline's out-of-fold prediction, as the challenge's winners did;
- `cleanlab`: cleanlab's segmentation scores of the baseline. cleanlab is AGPL, hence the environment of its own
  (line 1); without it the column is left out.

`--fit` fits the weights of the evidence on these sets and writes the module; use other seeds to measure than to fit.
`--jobs` works on several sets at once, each in a process of its own. `--keep` keeps sets, models and predictions in a
folder. What is there is not made again, but all labels are judged anew. `--rate` prints chips of 512 pixels per second
of the evidence that needs no network, on one core and on two.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from audit_fit import Judgements, fit
from audit_rate import rates
from audit_set import CLEAN, AuditedSet
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score
from threadpoolctl import threadpool_limits

from cloudcover.config.params import Params
from cloudcover.labels.score import estimated_error_share
from cloudcover.runtime.files import write_json


class Result(NamedTuple):
    """What came of one set."""

    judgements: Judgements
    seconds: float


def parameters(args: argparse.Namespace, seed: int) -> Params:
    """The defaults, but for what the command line says."""
    p = Params()
    synthetic = {"chips": args.chips, "scenes": args.scenes, "label_errors": args.errors}
    return p.model_copy(
        update={
            "seed": seed,
            "data": p.data.model_copy(update={"chip_size": args.size}),
            "synthetic": p.synthetic.model_copy(update=synthetic),
            "folds": p.folds.model_copy(update={"number": args.folds, "test_share": 0.0}),
            "training": p.training.model_copy(update={"steps": args.steps}),
            "compute": p.compute.model_copy(update={"device": args.device}),
        }
    )


def run(args: argparse.Namespace, seed: int) -> Result:
    """Judge the labels of one set."""
    warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric|torch")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    torch.set_num_threads(args.threads)
    start = time.perf_counter()
    place = nullcontext(args.keep / f"seed-{seed}") if args.keep else tempfile.TemporaryDirectory()
    with place as folder, threadpool_limits(args.threads):
        judgements = AuditedSet(parameters(args, seed), Path(folder)).judgements(args.threads)
    return Result(judgements, time.perf_counter() - start)


def scores(table: pd.DataFrame) -> dict[str, NDArray[np.float64]]:
    """The scores by which each way sorts labels, high = suspicious."""
    ways = {"audit": table["suspicion"], "first": table["first"], "low_iou": 1 - table["first_model_iou"]}
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
    figures = {"rate_true": float(wrong.mean()), "rate_estimated": rate}
    chips = pd.DataFrame({"error": table["error"]})
    for name, score in scores(table).items():
        chips[name] = rejected(score, number)
        figures[f"ap_{name}"] = float(average_precision_score(wrong, score)) if wrong.any() else float("nan")
        figures[f"recall_at_rate_{name}"] = float(chips[name][wrong].mean()) if wrong.any() else float("nan")
    above = table["suspicion"].to_numpy() > 0.5
    figures["rejected_share"] = float(above.mean())
    figures["rejected_right_share"] = float(above[~wrong].mean())
    return figures, chips


def report(seeds: list[int], results: list[Result], json: Path | None) -> None:
    """Print the tables, and write the means as JSON."""
    measured = [measure(result.judgements[1]) for result in results]
    rows = [
        {"seed": s, **figures, "seconds": r.seconds}
        for s, r, (figures, _) in zip(seeds, results, measured, strict=True)
    ]
    table, chips = pd.DataFrame(rows), pd.concat([chips for _, chips in measured])
    mean = table.drop(columns="seed").mean()
    kinds = chips.groupby("error").mean()
    kinds.insert(0, "labels", chips.groupby("error").size())
    print(table.set_index("seed").T.round(3).to_string())
    print(f"\nmean of {len(seeds)} sets\n{mean.round(3).to_string()}")
    print(f"\nshare rejected at the estimated rate, by kind of error\n{kinds.round(3).to_string()}")
    if json:
        by_kind = {f"recall_{kind}": float(share) for kind, share in kinds["audit"].items() if kind != CLEAN}
        write_json(json, {**{k: float(v) for k, v in mean.items() if pd.notna(v)}, **by_kind})


def main() -> None:
    """Prints the tables and writes the files that are asked for."""
    defaults = Params()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chips", type=int, default=330, help="chips of a set (%(default)s)")
    parser.add_argument("--scenes", type=int, default=33, help="scenes of a set (%(default)s)")
    parser.add_argument("--size", type=int, default=128, help="side of a chip [pixels] (%(default)s)")
    parser.add_argument("--folds", type=int, default=3, help="folds of the networks (%(default)s)")
    parser.add_argument("--steps", type=int, default=defaults.training.steps, help="of a training (%(default)s)")
    parser.add_argument("--errors", type=float, default=defaults.synthetic.label_errors, help="share of wrong labels")
    parser.add_argument("--quick", action="store_true", help="a set of 72 chips of 64 pixels, to see that all works")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the first set; the others have the next")
    parser.add_argument("--repeats", type=int, default=1, help="number of sets")
    parser.add_argument("--jobs", type=int, default=1, help="sets at once (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="threads of each set (%(default)s)")
    parser.add_argument("--device", default="cpu", choices=["auto", "cpu", "cuda"], help="(%(default)s)")
    parser.add_argument("--json", type=Path, help="write the mean figures here")
    parser.add_argument("--fit", type=Path, help="write weights fitted on these sets here, a Python module")
    parser.add_argument("--keep", type=Path, help="keep sets, models and predictions here, and use those that are")
    parser.add_argument("--rate", action="store_true", help="print chips per second of what needs no network")
    args = parser.parse_args()
    if args.rate:
        print(rates(args.seed).round(3).to_string(index=False))
        return
    if args.fit and args.repeats < 2:
        parser.error("--fit holds out one set at a time and needs --repeats 2 or more")
    if args.quick:
        args.chips, args.scenes, args.size, args.steps = 72, 12, 64, 24
    seeds = list(range(args.seed, args.seed + args.repeats))
    with ProcessPoolExecutor(args.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        results = list(pool.map(partial(run, args), seeds))
    report(seeds, results, args.json)
    if args.fit:
        args.fit.write_text(fit([result.judgements for result in results]), encoding="utf-8")


if __name__ == "__main__":
    main()
