"""How well the audit finds wrong labels, against sorting labels by out-of-fold IoU and by cleanlab's scores.

    python -m venv .venv/cleanlab && .venv/cleanlab/bin/pip install cleanlab==2.9.0
    python benchmarks/audit.py --seed 1 --repeats 5 --json audit.json
    python benchmarks/audit.py --seed 1000 --repeats 6 --fit
    python benchmarks/audit.py --rate

Creates synthetic sets whose wrong labels are known, and runs the audit's part of the workflow on each: train a
baseline on all given labels, predict it out of fold, judge the labels, train round 1 on the labels that are left,
predict it out of fold, judge the labels again. Prints for each score the average precision and the recall at the
estimated rate: as many labels are rejected as the audit estimates to be wrong, without knowing the truth. Then the
recall of each kind of error.

- `first`: suspicion by the baseline's probabilities;
- `audit`: suspicion after round 1;
- `network_iou`: 1 - IoU of label and the baseline's out-of-fold prediction, as the challenge's winners did;
- `cleanlab`: cleanlab's segmentation scores of the baseline. cleanlab is AGPL, hence the environment of its own
  (line 1); without it the column is left out.

`--fit` prints the weights of `cloudcover.labels.score` fitted on these sets; use other seeds to measure than to fit.
`--keep` keeps the sets, models and predictions in a folder. What is there is not made again, but all labels are judged
anew. `--rate` prints chips of 512 pixels per second of the evidence that needs no network, on one core and on two.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from audit_fit import fit
from audit_rate import rates
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from cloudcover.config.params import LabelsParams, Params
from cloudcover.data import tables
from cloudcover.data.chips import IGNORE_INDEX
from cloudcover.data.folds import split
from cloudcover.data.pack import pack
from cloudcover.data.store import ChipStore
from cloudcover.labels.audit import Probabilities, judge_labels
from cloudcover.labels.evidence import gather_evidence
from cloudcover.labels.manifest import build_manifest
from cloudcover.labels.score import estimated_error_share
from cloudcover.masks.out_of_fold import OutOfFold
from cloudcover.predict.oof import predict_oof
from cloudcover.runtime.files import derive_seed, write_json
from cloudcover.sources.fetch import fetch
from cloudcover.train.run import TrainingConfig, train
from cloudcover.train.split import select

CLEAN = "none"
POLICY = "vflip"
ROOT = Path(__file__).resolve().parents[1]
CLEANLAB = ROOT / ".venv/cleanlab/bin/python"


@dataclass(frozen=True)
class Bench:
    """The part of the workflow that cleans labels, on one synthetic set below `folder`."""

    params: Params
    folder: Path

    @cached_property
    def store(self) -> ChipStore:
        """The packed chips."""
        root, p = self.folder / "store", self.params
        if not (root / "index.parquet").exists():
            fetch(p.data, p.synthetic, p.seed, self.folder / "raw", self.folder / "truth")
            pack(self.folder / "raw", root, self.folder / "quarantine.csv", p.data)
        return ChipStore(root)

    @cached_property
    def folds(self) -> pd.DataFrame:
        """`tables.FOLDS`, balanced by the coverage of the given labels."""
        index = self.store.index.reset_index(drop=True)
        chips = index[["chip_id", "location", "datetime"]].assign(coverage_share=index["label_coverage_share"])
        return split(chips, self.params.folds, derive_seed(self.params.seed, "folds"))

    def probabilities(self, run: str, manifest: pd.DataFrame, learn_from: Literal["given", "clean"]) -> Probabilities:
        """Out-of-fold probabilities of a run, trained unless they are in the folder."""
        out, p = self.folder / "oof" / run, self.params
        if not (out / "index.csv").exists():
            config = TrainingConfig(p.seed, p.data, p.folds, p.input, p.model, p.training, p.augmentation, p.compute)
            models = {k: self.folder / "models" / run / f"fold{k}" for k in range(p.folds.number)}
            for fold, model in models.items():
                learned = select(manifest, self.folds, fold, learn_from=learn_from)
                train(config, self.store, learned, model, self.folder / "work", run=run, fold=fold)
            predict_oof(self.store, self.folds, {k: [m] for k, m in models.items()}, [POLICY], p.compute, out)
        return partial(OutOfFold([out]).probabilities, policy=POLICY)

    def audits(self, threads: int) -> tuple[pd.DataFrame, pd.DataFrame]:
        """`tables.AUDIT` with `error` by the baseline, and after round 1; the latter also has the scores of others."""
        store, folds, nodata = self.store, self.folds, self.params.data.nodata
        labelled = store.index["labelled"].map({True: "clean", False: "unlabelled"})
        everything = pd.DataFrame({"chip_id": store.index["chip_id"].to_numpy(), "verdict": labelled.to_numpy()})
        baseline = self.probabilities("baseline", everything, "given")
        evidence, votes = gather_evidence(store, folds, nodata, self.params.seed, threads)
        judge = partial(judge_labels, store, evidence, votes, folds=folds, nodata=nodata, threads=threads)
        first = judge(baseline)
        verdicts = tables.VERDICTS.empty()
        manifest = build_manifest(first, verdicts, store.index, LabelsParams(policy="auto", max_suspicion=None))
        second = judge(self.probabilities("round1", manifest, "clean"), previous=first)
        errors = tables.TRUTH.read(self.folder / "truth/masks.csv").set_index("chip_id")["error"]
        errors = errors.loc[first["chip_id"]].replace("", CLEAN).to_numpy()
        second = second.assign(first=first["suspicion"], first_model_iou=first["model_iou"])
        if CLEANLAB.exists():
            second["cleanlab"] = self.cleanlab(first["chip_id"].tolist(), baseline)
        return first.assign(error=errors), second.assign(error=errors)

    def cleanlab(self, chip_ids: list[str], probabilities: Probabilities) -> NDArray[np.float64]:
        """Score each label by cleanlab, low = suspicious."""
        labels, cloud = self.store.labels(chip_ids), probabilities(chip_ids)
        arrays, scores = self.folder / "arrays.npz", self.folder / "scores.npy"
        np.savez(arrays, labels=np.where(labels == IGNORE_INDEX, cloud > 0.5, labels), cloud=cloud)
        script = ROOT / "benchmarks/baselines/cleanlab_scores.py"
        subprocess.run([CLEANLAB, script, arrays, scores], check=True, capture_output=True)
        return np.asarray(np.load(scores), np.float64)


def scores(table: pd.DataFrame) -> dict[str, NDArray[np.float64]]:
    """The scores by which each way sorts labels, high = suspicious."""
    ways = {"audit": table["suspicion"], "first": table["first"], "network_iou": 1 - table["first_model_iou"]}
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


def main() -> None:
    """Prints the tables and writes the JSON."""
    defaults = Params()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chips", type=int, default=270, help="chips of a set (%(default)s)")
    parser.add_argument("--scenes", type=int, default=30, help="scenes of a set (%(default)s)")
    parser.add_argument("--size", type=int, default=96, help="side of a chip [pixels] (%(default)s)")
    parser.add_argument("--folds", type=int, default=3, help="folds of the networks (%(default)s)")
    parser.add_argument("--errors", type=float, default=defaults.synthetic.label_errors, help="share of wrong labels")
    parser.add_argument("--seed", type=int, default=0, help="of the first set; the next sets have the next ones")
    parser.add_argument("--repeats", type=int, default=1, help="number of sets")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads (%(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--fit", action="store_true", help="print weights fitted on these sets")
    parser.add_argument("--rate", action="store_true", help="print chips per second of what needs no network")
    parser.add_argument("--keep", type=Path, help="keep sets, models and predictions here, and use those that are")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.rate:
        print(rates(args.seed).round(3).to_string(index=False))
        return
    synthetic = {"chips": args.chips, "scenes": args.scenes, "label_errors": args.errors}
    sets, figures, verdicts = [], [], []
    for seed in range(args.seed, args.seed + args.repeats):
        params = defaults.model_copy(
            update={
                "seed": seed,
                "data": defaults.data.model_copy(update={"chip_size": args.size}),
                "synthetic": defaults.synthetic.model_copy(update=synthetic),
                "folds": defaults.folds.model_copy(update={"number": args.folds}),
                "compute": defaults.compute.model_copy(update={"device": args.device}),
            }
        )
        with tempfile.TemporaryDirectory() as folder:
            place = args.keep / f"seed-{seed}" if args.keep else Path(folder)
            audits = Bench(params, place).audits(args.threads)
        sets.append(audits)
        one, rejects = measure(audits[1])
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
