"""The part of the workflow that judges labels, on one set of chips; run by `audit.py`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import audit_noise
import audit_real
import pandas as pd

from cloudcover.config.params import Params
from cloudcover.config.sections import LabelsParams, Tta
from cloudcover.config.training import TrainingConfig
from cloudcover.data import tables
from cloudcover.data.folds import split
from cloudcover.data.pack import pack
from cloudcover.data.store import ChipStore
from cloudcover.labels.audit import Probabilities, judge_labels
from cloudcover.labels.disagreement import self_confidence
from cloudcover.labels.evidence import gather_evidence
from cloudcover.labels.manifest import build_manifest
from cloudcover.masks.out_of_fold import OutOfFold
from cloudcover.predict.oof import predict_oof
from cloudcover.runtime.files import derive_seed, fingerprint
from cloudcover.train.run import train
from cloudcover.train.split import all_labels, select

CLEAN = "none"
"""The kind of error of a right label."""
UNKNOWN = "unknown"
"""The kind of error of a label that may be right or wrong."""
BATCH = 32
VALIDATED = 8
"""Networks that learn from windows are validated on every so many-th chip."""


@dataclass(frozen=True)
class AuditedSet:
    """A set, its networks and their predictions, in `folder`; existing files are reused.

    Attributes:
        params: Parameters of the chain.
        folder: Where everything is kept.
        noise: Family of the synthetic labels' errors, see `audit_noise`.
        tta: Views by whose mean labels are judged.
        real: Folder of real chips to put among the synthetic ones, or None.
    """

    params: Params
    folder: Path
    noise: str = audit_noise.OWN
    tta: Tta = "d4"
    real: Path | None = None

    @cached_property
    def store(self) -> ChipStore:
        """The packed chips."""
        root, p = self.folder / "store", self.params
        if not (root / "index.parquet").exists():
            raw = self.folder / "raw"
            errors = audit_noise.make(self.noise, p.data, p.synthetic, p.seed, raw, self.folder / "truth")
            if self.real:
                errors = pd.concat([errors, audit_real.add(self.real, raw, p.data.chip_size)])
            errors.rename_axis("chip_id").to_csv(self.folder / "errors.csv")
            pack(raw, root, self.folder / "quarantine.csv", p.data)
        return ChipStore(root)

    @cached_property
    def folds(self) -> pd.DataFrame:
        """`tables.FOLDS`, balanced by the coverage of the given labels."""
        index = self.store.index.reset_index(drop=True)
        chips = index[["chip_id", "location", "datetime"]].assign(coverage_share=index["label_coverage_share"])
        return split(chips, self.params.folds, derive_seed(self.params.seed, "folds"))

    def judgements(self, threads: int, twice: bool) -> list[pd.DataFrame]:
        """Judge the labels by the baseline and, if asked for, again after round 1.

        Returns:
            `tables.AUDIT` of each judgement with `error` (`CLEAN`, `UNKNOWN` or a kind) and two scores of the
            baseline's network alone: `model_iou` and `softmin`, low = suspicious.
        """
        index = self.store.index.reset_index(drop=True)
        baseline = self.probabilities("baseline", all_labels(index, "human"))
        evidence, votes = gather_evidence(self.store, self.folds, self.params.seed, threads)
        judge = partial(judge_labels, self.store, evidence, votes, folds=self.folds, threads=threads)
        found = [judge(baseline)]
        if twice:
            labels = LabelsParams(policy="auto", max_suspicion=None)
            manifest = build_manifest(found[0], tables.VERDICTS.empty(), self.store.index, self.folds, labels)
            found.append(judge(self.probabilities("round1", manifest), previous=found[0]))
        errors = pd.read_csv(self.folder / "errors.csv", index_col="chip_id", keep_default_na=False)["error"]
        chip_ids = found[0]["chip_id"].tolist()
        columns = {
            "error": errors.loc[chip_ids].replace("", CLEAN).to_numpy(),
            "model_iou": found[0]["model_iou"].to_numpy(),
            "softmin": self.softmin(chip_ids, baseline),
        }
        return [table.assign(**columns) for table in found]

    def softmin(self, chip_ids: list[str], probabilities: Probabilities) -> list[float]:
        """Score labels by the soft minimum of Lad & Mueller (2023), which cleanlab publishes, low = suspicious."""
        return [
            float(score)
            for batch in self.store.batches(chip_ids, BATCH)
            for score in self_confidence(probabilities(batch), self.store.labels(batch))
        ]

    def probabilities(self, run: str, labels: pd.DataFrame) -> Probabilities:
        """Compute out-of-fold probabilities of networks that learn from some labels."""
        name = f"{run}-{fingerprint(labels['label'].tolist())[:12]}"
        out, config = self.folder / "oof" / name, TrainingConfig.of(self.params)
        if not (out / "index.csv").exists():
            models = {k: self.folder / "models" / name / f"fold{k}" for k in range(self.params.folds.number)}
            for fold, model in models.items():
                learned = select(labels, self.folds, fold)
                if self.params.augmentation.crop_size:  # whole chips only choose the epoch, and take most of the time
                    learned = replace(learned, validation=learned.validation.iloc[::VALIDATED])
                train(config, self.store, learned, model, self.folder / "work", run=run, fold=fold)
            kept = {k: [m] for k, m in models.items()}
            predict_oof(self.store, self.folds, kept, [self.tta], self.params.compute, out)
        return partial(OutOfFold([out]).probabilities, policy=self.tta)
