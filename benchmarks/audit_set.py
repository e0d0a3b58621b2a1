"""The part of the workflow that judges labels, on one synthetic set; run by `audit.py`."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cloudcover.config.params import Params
from cloudcover.config.sections import LabelsParams
from cloudcover.config.training import TrainingConfig
from cloudcover.data import tables
from cloudcover.data.chips import IGNORE_INDEX
from cloudcover.data.folds import split
from cloudcover.data.pack import pack
from cloudcover.data.store import ChipStore
from cloudcover.labels.audit import Probabilities, judge_labels
from cloudcover.labels.evidence import gather_evidence
from cloudcover.labels.manifest import build_manifest
from cloudcover.masks.out_of_fold import OutOfFold
from cloudcover.predict.oof import predict_oof
from cloudcover.runtime.files import derive_seed, fingerprint
from cloudcover.sources.fetch import fetch
from cloudcover.train.run import train
from cloudcover.train.split import all_labels, select

CLEAN = "none"
"""The kind of error of a right label."""
POLICY = "d4"
ROOT = Path(__file__).resolve().parents[1]
CLEANLAB = ROOT / ".venv/cleanlab/bin/python"


@dataclass(frozen=True)
class AuditedSet:
    """A synthetic set, its networks and what they predict, in `folder`; what is there is not made again."""

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

    def judgements(self, threads: int) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Judge the labels by the baseline, and again after round 1.

        Returns:
            `tables.AUDIT` with `error` for each of the two. The second also has `first` and `first_model_iou`, the
            suspicion and the network's IoU by the baseline, and, where it is installed, `cleanlab`.
        """
        nodata, index = self.params.data.nodata, self.store.index.reset_index(drop=True)
        baseline = self.probabilities("baseline", all_labels(index, "human"))
        evidence, votes = gather_evidence(self.store, self.folds, nodata, self.params.seed, threads)
        judge = partial(judge_labels, self.store, evidence, votes, folds=self.folds, nodata=nodata, threads=threads)
        first = judge(baseline)
        labels = LabelsParams(policy="auto", max_suspicion=None)
        manifest = build_manifest(first, tables.VERDICTS.empty(), self.store.index, self.folds, labels)
        second = judge(self.probabilities("round1", manifest), previous=first)
        second = second.assign(first=first["suspicion"], first_model_iou=first["model_iou"])
        if CLEANLAB.exists():
            second["cleanlab"] = self.cleanlab(first["chip_id"].tolist(), baseline)
        errors = tables.TRUTH.read(self.folder / "truth/masks.csv").set_index("chip_id")["error"]
        error = errors.loc[first["chip_id"]].replace("", CLEAN).to_numpy()
        return first.assign(error=error), second.assign(error=error)

    def probabilities(self, run: str, labels: pd.DataFrame) -> Probabilities:
        """Out-of-fold probabilities of networks that learn from some labels."""
        name = f"{run}-{fingerprint(labels['label'].tolist())[:12]}"
        out, config = self.folder / "oof" / name, TrainingConfig.of(self.params)
        if not (out / "index.csv").exists():
            models = {k: self.folder / "models" / name / f"fold{k}" for k in range(self.params.folds.number)}
            for fold, model in models.items():
                learned = select(labels, self.folds, fold)
                train(config, self.store, learned, model, self.folder / "work", run=run, fold=fold)
            predict_oof(self.store, self.folds, {k: [m] for k, m in models.items()}, [POLICY], self.params.compute, out)
        return partial(OutOfFold([out]).probabilities, policy=POLICY)

    def cleanlab(self, chip_ids: list[str], probabilities: Probabilities) -> NDArray[np.float64]:
        """Score each label by cleanlab, low = suspicious."""
        labels, cloud = self.store.labels(chip_ids), probabilities(chip_ids)
        arrays, scores = self.folder / "arrays.npz", self.folder / "scores.npy"
        np.savez(arrays, labels=np.where(labels == IGNORE_INDEX, cloud > 0.5, labels), cloud=cloud)
        script = ROOT / "benchmarks/baselines/cleanlab_scores.py"
        subprocess.run([CLEANLAB, script, arrays, scores], check=True, capture_output=True)
        return np.asarray(np.load(scores), np.float64)
