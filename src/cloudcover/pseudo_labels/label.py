"""Pseudo-labels: the models of a round predict the chips whose label was rejected or that have none.

The rule is the original's: a pixel is confident at p > c or p < 1 - c, a chip is accepted when more than a share of its
pixels is confident. Chips accepted in earlier rounds are judged again.
Students learn masks, or the probabilities themselves (`pseudo_labels.targets`); what is measured, is measured on masks.

Each student learns from what its own teacher says: the model of the round before that was held back from the same
fold. The original let all models vote, but those of the other folds have learned from the labels that the student is
judged by, and what they know of them would reach it through the pseudo-labels.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from cloudcover.config.sections import PseudoLabelParams
from cloudcover.data import tables
from cloudcover.data.chips import IGNORE_INDEX
from cloudcover.data.store import ChipStore
from cloudcover.masks.codec import encode_soft_labels, harden_soft_labels
from cloudcover.masks.pseudo import HARD, SOFT, PseudoLabels
from cloudcover.models.folder import ModelCard
from cloudcover.predict.predictor import Predictor
from cloudcover.runtime.arrays import create_array
from cloudcover.runtime.files import atomic

log = logging.getLogger(__name__)


class TeacherError(ValueError):
    """A model must not teach, because it has seen what its student is judged by, or the label that it replaces."""


def candidates(manifest: pd.DataFrame, folds: pd.DataFrame, student: int) -> pd.DataFrame:
    """Chips to pseudo-label for a student: chip_id, fold, candidate (`bad` or `unlabelled`), sorted by chip_id.

    Chips of scenes that the student is judged by are none.
    """
    chips = manifest[manifest["verdict"] != "clean"].rename(columns={"verdict": "candidate"})
    chips = chips.merge(folds[["chip_id", "fold"]], on="chip_id", validate="one_to_one")
    chips = chips[chips["fold"] != student]
    return chips[["chip_id", "fold", "candidate"]].sort_values("chip_id", ignore_index=True)


def check_teacher(card: ModelCard, student: int) -> None:
    """Refuses a model that has learned from the labels of the student's fold, or from rejected labels.

    Raises:
        TeacherError: names the model.
    """
    if card.fold != student:
        raise TeacherError(
            f"the model of {card.run}, fold {card.fold}, has seen the labels of fold {student}, by which its student "
            "would be judged"
        )
    if not card.run.startswith("round"):
        raise TeacherError(f"the model of {card.run} may have learned from the rejected labels that it would replace")


def confident_share(
    probabilities: NDArray[np.float32], known: NDArray[np.bool_], pixel_confidence: float
) -> NDArray[np.float64]:
    """Share of confident pixels among the known ones of each chip; 0 for a chip without known pixels.

    Args:
        probabilities: N x H x W in [0, 1].
        known: N x H x W, False where there is no data.
        pixel_confidence: c; a pixel is confident at p > c or p < 1 - c.
    """
    confident = ((probabilities > pixel_confidence) | (probabilities < 1 - pixel_confidence)) & known
    counts = known.sum(axis=(1, 2))
    return np.asarray(confident.sum(axis=(1, 2)) / np.maximum(counts, 1), np.float64)


def labels_of(
    probabilities: NDArray[np.float32], known: NDArray[np.bool_], params: PseudoLabelParams
) -> NDArray[np.uint8]:
    """What students learn: 1 at p > 0.5, else 0; or, with `targets: soft`, the codes of `cloudcover.masks.codec`.

    255 without data and, with `uncertain_pixels: ignore`, where not confident.
    """
    soft = params.targets == "soft"
    labels = encode_soft_labels(probabilities) if soft else (probabilities > 0.5).astype(np.uint8)
    if params.uncertain_pixels == "ignore":
        c = params.pixel_confidence
        labels[(probabilities <= c) & (probabilities >= 1 - c)] = IGNORE_INDEX
    labels[~known] = IGNORE_INDEX
    return labels


def pseudo_label(
    store: ChipStore,
    manifest: pd.DataFrame,
    folds: pd.DataFrame,
    teachers: Mapping[int, Predictor],
    params: PseudoLabelParams,
    out: Path,
    previous: Path | None = None,
) -> pd.DataFrame:
    """Predicts the candidates of each student by its teacher and decides which masks are good enough to learn from.

    A round that accepts nothing is allowed.

    Args:
        store: the packed chips.
        manifest: `tables.MANIFEST`.
        folds: `tables.FOLDS`.
        teachers: by the fold that they and their students do not see.
        params: the rule.
        out: gets `masks.npy` (N x H x W uint8 of {0, 1, 255}, a row per student and candidate) or, if soft,
            `probabilities.npy` (alike, see `cloudcover.masks.codec`), and `pseudo_labels.csv` (`tables.PSEUDO`).
        previous: `pseudo_labels.csv` of the round before.

    Returns:
        What was written to `pseudo_labels.csv`.

    Raises:
        TeacherError: see `check_teacher`.
    """
    for student, teacher in teachers.items():
        check_teacher(teacher.card, student)
    chosen = {student: candidates(manifest, folds, student) for student in sorted(teachers)}
    number = sum(map(len, chosen.values()))
    parts = []
    out.mkdir(parents=True, exist_ok=True)
    for old in (HARD, SOFT):
        (out / old).unlink(missing_ok=True)
    file = out / (SOFT if params.targets == "soft" else HARD)
    with atomic(file) as part, tqdm(total=number, desc="pseudo-label", unit="chip", disable=None) as bar:
        size = teachers[min(teachers)].card.chip_size
        labels = create_array(part, np.uint8, (number, size, size))
        start = 0
        for student, chips in chosen.items():
            before = PseudoLabels(previous, student) if previous else None
            own = labels[start : start + len(chips)]
            judged = _judge(store, chips, teachers[student], params, own, bar)
            judged = judged.assign(student=student, row=np.arange(start, start + len(chips)))
            parts.append(pd.concat([judged, _churn(judged, own, before, params)], axis=1))
            start += len(chips)
        labels.flush()
    table = tables.PSEUDO.check(pd.concat(parts, ignore_index=True), out / "pseudo_labels.csv")
    tables.PSEUDO.write(table, out / "pseudo_labels.csv")
    counts = table["change"].value_counts()
    log.info(
        "accepted %d of %d pseudo-labels: %d added, %d kept, %d dropped%s",
        table["accepted"].sum(), len(table), counts.get("added", 0), counts.get("kept", 0), counts.get("dropped", 0),
        "" if table["accepted"].any() else "; the next round learns from clean labels only",
    )  # fmt: skip
    return table


def _judge(
    store: ChipStore,
    chips: pd.DataFrame,
    teacher: Predictor,
    params: PseudoLabelParams,
    labels: NDArray[np.uint8],
    bar: tqdm[NoReturn],
) -> pd.DataFrame:
    """Fills the labels of one student's candidates, and adds to `chips` what the rule says of them."""
    rows: list[dict[str, object]] = []
    for batch in store.batches(chips["chip_id"], teacher.batch):
        dn = store.chips(batch)
        known = ~(dn == teacher.card.nodata).any(axis=1)
        probabilities = teacher.probabilities(dn, store.percentiles(batch))
        shares = confident_share(probabilities, known, params.pixel_confidence)
        start = len(rows)
        made = labels[start : start + len(batch)] = labels_of(probabilities, known, params)
        for i, (mask, given) in enumerate(zip(_masks(made, params), store.labels(batch), strict=True)):
            entry = {"accepted": bool(shares[i] > params.chip_confidence), "confident_share": shares[i]}
            rows.append({**entry, **_describe(mask, given)})
        bar.update(len(batch))
    columns = ["accepted", "confident_share", "coverage_share", "agreement_iou"]
    return pd.concat([chips, pd.DataFrame(rows, columns=columns)], axis=1)


def _masks(labels: NDArray[np.uint8], params: PseudoLabelParams) -> NDArray[np.uint8]:
    """Labels as masks of {0, 1, 255}."""
    return harden_soft_labels(labels) if params.targets == "soft" else labels


def _describe(mask: NDArray[np.uint8], given: NDArray[np.uint8]) -> dict[str, float]:
    """Coverage of a mask, and its IoU with the given label (NaN where there is none)."""
    known = mask != IGNORE_INDEX
    both = known & (given != IGNORE_INDEX)
    union = int((((mask == 1) | (given == 1)) & both).sum())
    intersection = int(((mask == 1) & (given == 1) & both).sum())
    iou = float("nan") if not both.any() else intersection / union if union else 1.0
    return {"coverage_share": float((mask == 1).sum() / max(1, known.sum())), "agreement_iou": iou}


def _churn(
    table: pd.DataFrame, labels: NDArray[np.uint8], before: PseudoLabels | None, params: PseudoLabelParams
) -> pd.DataFrame:
    """What changed since the round before: `change` of the acceptance and the share of changed pixels."""
    changes, shares = [], []
    for row, (chip_id, accepted) in enumerate(zip(table["chip_id"], table["accepted"], strict=True)):
        was = before is not None and chip_id in before.table.index and bool(before.table.at[chip_id, "accepted"])
        changes.append({(0, 1): "added", (1, 1): "kept", (1, 0): "dropped", (0, 0): "none"}[int(was), int(accepted)])
        if before is not None and chip_id in before.table.index:
            shares.append(float((before.masks([chip_id])[0] != _masks(labels[row], params)).mean()))
        else:
            shares.append(float("nan"))
    return pd.DataFrame({"change": changes, "changed_pixels_share": shares})
