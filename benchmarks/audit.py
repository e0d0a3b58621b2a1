"""Compare the audit with two standard scores for finding wrong labels.

    python benchmarks/audit.py --quick
    python benchmarks/audit.py --seed 1 --repeats 5 --jobs 5 --json audit.json
    python benchmarks/audit.py --noise own thin style boxes shift scene_failed none --once --seed 1 --repeats 2
    python benchmarks/audit.py --real ../shared/real-labels
    python benchmarks/audit.py --noise own scene_failed none --once --repeats 2 --fit src/cloudcover/labels/weights.py
    python benchmarks/audit.py --rate

Creates synthetic sets whose wrong labels are known, and runs the workflow's judgement of labels on each: train a
baseline on all given labels, predict it out of fold, judge the labels, train round 1 on the labels that are left,
predict it out of fold, judge the labels again (`--once`: only the first judgement). `--noise` makes one set of each
family of errors (`audit_noise`) per seed. Prints for each score the average precision, and precision and recall of
what it rejects: the labels that the chain would reject by the audit, and as many by the other scores.

- `audit`: suspicion by the last judgement;
- `first`: suspicion by the baseline;
- `low_iou`: 1 - IoU of label and the baseline's out-of-fold prediction, as the challenge's winners did;
- `softmin`: the baseline's soft minimum of Lad & Mueller (2023), the score that cleanlab publishes for segmentation.
  It is computed here, because cleanlab is AGPL.

`--real` puts labelled real chips among the synthetic ones. `label_votes.csv` in their folder says how many of four
reviewers reject each label: three or four count as wrong, none or one as right; chips without votes are only ranked.
`--size 128` averages real chips of 512 pixels over squares of 4; at their own size networks learn from windows.

`--fit` fits the weights of the evidence on these sets, with one family held out at a time (one set, where there is a
single family), and writes the module; use other seeds to measure than to fit. `--jobs` works on several sets at once,
each in a process of its own. `--keep` keeps sets, models and predictions in a folder. Existing files are not made
again, but all labels are judged again. `--rate` prints chips of 512 pixels per second of the evidence that needs no
network, on one core and on two.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import multiprocessing
import tempfile
import time
import warnings
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import NamedTuple, get_args

import audit_noise
import audit_real
import pandas as pd
import torch
from audit_fit import fit
from audit_rate import rates
from audit_set import CLEAN, AuditedSet
from sklearn.metrics import average_precision_score
from threadpoolctl import threadpool_limits

from cloudcover.config.params import Params
from cloudcover.config.sections import Tta
from cloudcover.labels.manifest import suspects
from cloudcover.labels.score import estimated_error_share, is_determined
from cloudcover.runtime.files import write_json

REAL = {"chips": 200, "scenes": 30, "size": 512, "folds": 2, "steps": 168, "once": True, "tta": "vflip"}
"""Defaults with `--real`."""
WINDOW = 128
"""Networks learn from windows of this side where chips are larger [pixels]."""


class Result(NamedTuple):
    """The result for one set: its judgements and their duration."""

    noise: str
    seed: int
    judgements: list[pd.DataFrame]
    seconds: float


def parameters(args: argparse.Namespace, seed: int) -> Params:
    """Return the defaults, modified by the command line."""
    p = Params()
    synthetic = {"chips": args.chips, "scenes": args.scenes, "label_errors": args.errors}
    return p.model_copy(
        update={
            "seed": seed,
            "data": p.data.model_copy(update={"chip_size": args.size}),
            "synthetic": p.synthetic.model_copy(update=synthetic),
            "folds": p.folds.model_copy(update={"number": args.folds, "test_share": 0.0}),
            "training": p.training.model_copy(update={"steps": args.steps}),
            "augmentation": p.augmentation.model_copy(update={"crop_size": WINDOW if args.size > WINDOW else None}),
            "compute": p.compute.model_copy(update={"device": args.device}),
        }
    )


def run(args: argparse.Namespace, job: tuple[str, int]) -> Result:
    """Judge the labels of one set."""
    warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric|torch")
    logging.getLogger("cloudcover").setLevel(logging.ERROR)
    torch.set_num_threads(args.threads)
    noise, seed = job
    start = time.perf_counter()
    place = nullcontext(args.keep / f"{noise}-{seed}") if args.keep else tempfile.TemporaryDirectory()
    with place as folder, threadpool_limits(args.threads):
        audited = AuditedSet(parameters(args, seed), Path(folder), noise, args.tta, args.real)
        judgements = audited.judgements(args.threads, twice=not args.once)
    return Result(noise, seed, judgements, time.perf_counter() - start)


def scores(judgements: list[pd.DataFrame]) -> dict[str, pd.Series]:
    """Return the scores by which each way sorts labels, high = suspicious, by chip."""
    first, last = (judgements[k].set_index("chip_id") for k in (0, -1))
    ways = {"audit": last["suspicion"]} | ({"first": first["suspicion"]} if len(judgements) > 1 else {})
    return {**ways, "low_iou": 1 - first["model_iou"], "softmin": 1 - first["softmin"]}


def rejections(ways: dict[str, pd.Series]) -> dict[str, pd.Series]:
    """List the labels that each way rejects, by chip: the audit as in the workflow, the others the same number."""
    number = len(suspects(ways["audit"], None))
    ranked = {name: score.sort_values(ascending=False, kind="stable").index for name, score in ways.items()}
    return {name: ways[name].index.to_series().isin(order[:number]) for name, order in ranked.items()}


def measure(result: Result) -> tuple[dict[str, float], pd.DataFrame]:
    """Return the figures of one set, and a row per chip: its error, and whether each way rejects it."""
    table, ways = result.judgements[-1].set_index("chip_id", drop=False), scores(result.judgements)
    rejected, share = rejections(ways), estimated_error_share(table)
    wrong = ~table["error"].isin([CLEAN, audit_real.RIGHT, audit_real.UNKNOWN])
    figures = {
        "rate_true": float(wrong.mean()),
        "rate_estimated": share if is_determined(share) else float("nan"),
        "rejected_share": float(rejected["audit"].mean()),
        "rejected_right_share": float(rejected["audit"][~wrong].mean()),
        "precision": float(wrong[rejected["audit"]].mean()),
    }
    for name, score in ways.items():
        figures[f"ap_{name}"] = float(average_precision_score(wrong, score)) if wrong.any() else float("nan")
        figures[f"recall_at_rate_{name}"] = float(rejected[name][wrong].mean())
    if audit_real.WRONG in set(table["error"]):
        figures |= audit_real.measure(table["error"], ways, rejected)
    return figures, pd.DataFrame({"error": table["error"], **rejected})


def report(results: list[Result], json: Path | None) -> None:
    """Print the tables, and write the means as JSON."""
    measured = [measure(result) for result in results]
    rows = [
        {"noise": r.noise, "seed": r.seed, **figures, "seconds": r.seconds}
        for r, (figures, _) in zip(results, measured, strict=True)
    ]
    table, chips = pd.DataFrame(rows), pd.concat([chips for _, chips in measured])
    mean = table.drop(columns=["noise", "seed"]).mean()
    kinds = chips.groupby("error").mean()
    kinds.insert(0, "labels", chips.groupby("error").size())
    estimates = [f"{r:.3f}" if pd.notna(r) else "not determined" for r in table["rate_estimated"]]
    shown = table.assign(rate_estimated=estimates).set_index(["noise", "seed"])
    print(shown.T.to_string(float_format="{:.3f}".format))
    print(f"\nmean of {len(results)} sets\n{mean.round(3).to_string()}")
    print(f"\nshare rejected, by kind of error\n{kinds.round(3).to_string()}")
    if json:
        by_kind = {f"recall_{kind}": float(share) for kind, share in kinds["audit"].items() if kind != CLEAN}
        write_json(json, {**by_kind, **{k: float(v) for k, v in mean.items() if pd.notna(v)}})


def arguments() -> argparse.Namespace:
    """Read the command line."""
    defaults = Params()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--noise",
        nargs="+",
        default=[audit_noise.OWN],
        choices=[audit_noise.OWN, audit_noise.MANY, *audit_noise.FAMILIES],
        help="families of errors of the synthetic labels (%(default)s)",
    )
    parser.add_argument("--once", action="store_true", help="judge by the baseline alone, without round 1")
    parser.add_argument("--real", type=Path, help="folder of labelled real chips to put among the synthetic ones")
    parser.add_argument("--chips", type=int, default=330, help="chips of a set (%(default)s)")
    parser.add_argument("--scenes", type=int, default=33, help="scenes of a set (%(default)s)")
    parser.add_argument("--size", type=int, default=128, help="side of a chip [pixels] (%(default)s)")
    parser.add_argument("--folds", type=int, default=3, help="folds of the networks (%(default)s)")
    parser.add_argument(
        "--steps", type=int, default=defaults.training.steps, help="optimizer steps of a training (%(default)s)"
    )
    parser.add_argument("--tta", default="d4", choices=get_args(Tta), help="views whose mean judges labels")
    parser.add_argument("--errors", type=float, default=defaults.synthetic.label_errors, help="share of wrong labels")
    parser.add_argument("--quick", action="store_true", help="smoke test: a set of 72 chips of 64 pixels")
    parser.add_argument(
        "--seed", type=int, default=0, help="random seed of the first set; the following sets use the next numbers"
    )
    parser.add_argument("--repeats", type=int, default=1, help="number of sets of each family")
    parser.add_argument("--jobs", type=int, default=1, help="sets at once (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="threads of each set (%(default)s)")
    parser.add_argument("--device", default="cpu", choices=["auto", "cpu", "cuda"], help="(%(default)s)")
    parser.add_argument("--json", type=Path, help="write the mean figures here")
    parser.add_argument("--fit", type=Path, help="write weights fitted on these sets here, a Python module")
    parser.add_argument("--keep", type=Path, help="keep sets, models and predictions here, and reuse existing ones")
    parser.add_argument(
        "--rate", action="store_true", help="print chips per second of the evidence that needs no network"
    )
    if parser.parse_args().real:
        parser.set_defaults(**REAL)
    args = parser.parse_args()
    if args.fit and args.repeats * len(args.noise) < 2:
        parser.error("--fit holds out one family or set at a time and needs at least two")
    if args.quick:
        args.chips, args.scenes, args.size, args.steps = 72, 12, 64, 24
    return args


def main() -> None:
    """Print the tables and write the requested files."""
    args = arguments()
    if args.rate:
        print(rates(args.seed).round(3).to_string(index=False))
        return
    jobs = list(itertools.product(args.noise, range(args.seed, args.seed + args.repeats)))
    with ProcessPoolExecutor(args.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        results = list(pool.map(partial(run, args), jobs))
    if args.real:
        print(audit_real.ranking(args.real, results[0].judgements[-1]))
    report(results, args.json)
    if args.fit:
        groups = defaultdict(list)
        for result in results:
            groups[result.noise if len(args.noise) > 1 else result.seed] += result.judgements
        args.fit.write_text(fit(groups), encoding="utf-8")


if __name__ == "__main__":
    main()
