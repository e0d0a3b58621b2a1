"""Pseudo-labels from a round's own predictions, for chips without a label or with a rejected one.

The rule is that of the original: a pixel is confident if p > c or p < 1 - c, and a chip is accepted if more than a
given share of its pixels is confident. In addition, p is calibrated (`teachers.temperatures`), and there may be a quota
by cover (`quota`). Chips accepted in earlier rounds are judged again. Probabilities are out of fold, so no model
relabels a chip of a scene that it has learned from. Students learn masks or the probabilities themselves
(`pseudo_labels.targets`). All figures are computed from masks.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from cloudcover.config.sections import PseudoLabelParams, Tta
from cloudcover.data import tables
from cloudcover.data.chips import IGNORE_INDEX
from cloudcover.data.folds import TEST
from cloudcover.data.store import ChipStore
from cloudcover.masks.codec import encode_soft_labels, harden_soft_labels
from cloudcover.masks.decision import apply_temperature
from cloudcover.masks.out_of_fold import OutOfFold
from cloudcover.masks.pseudo import HARD, SOFT, PseudoLabels
from cloudcover.pseudo_labels.quota import within_quota
from cloudcover.pseudo_labels.teachers import temperatures
from cloudcover.runtime.arrays import create_array
from cloudcover.runtime.files import atomic
from cloudcover.runtime.text import listed

log = logging.getLogger(__name__)

BATCH = 32
"""Number of chips processed together."""
FEW = 0.05
"""Share of accepted candidates below which a round logs that its pseudo-labels hardly matter."""
NO_ROW = -1
"""Row of a chip without a pseudo-label."""


class TeacherError(ValueError):
    """Predictions that must not relabel these chips, because their models may have learned from the chips' scenes."""


def candidates(manifest: pd.DataFrame, folds: pd.DataFrame) -> list[str]:
    """List the chips to pseudo-label, sorted: chips outside the test part without a label or with a rejected one."""
    chips = manifest[manifest["verdict"] != "clean"].merge(folds, on="chip_id", validate="one_to_one")
    return sorted(chips.loc[chips["fold"] != TEST, "chip_id"])


def check_teacher(predictions: OutOfFold, folds: pd.DataFrame, chip_ids: list[str]) -> None:
    """Refuse predictions that are not out of fold for some chips.

    Raises:
        TeacherError: Some predictions are not out of fold; the message names the chips.
    """
    made = predictions.table["fold"].reindex(chip_ids)
    wanted = folds.set_index("chip_id")["fold"].loc[chip_ids]
    if (other := made[(made != wanted).to_numpy()]).size:
        raise TeacherError(
            f"{predictions.folders[0]} has predictions of other folds for {listed(other.index)}: predict them again"
        )


def confident_share(
    probabilities: NDArray[np.float32], known: NDArray[np.bool_], pixel_confidence: float
) -> NDArray[np.float64]:
    """Compute the share of confident pixels among the known ones of each chip; 0 for a chip without known pixels.

    Args:
        probabilities: N x H x W in [0, 1].
        known: N x H x W bool, False where there is no data.
        pixel_confidence: Confidence c; a pixel is confident if p > c or p < 1 - c.
    """
    confident = ((probabilities > pixel_confidence) | (probabilities < 1 - pixel_confidence)) & known
    counts = known.sum(axis=(1, 2))
    return np.asarray(confident.sum(axis=(1, 2)) / np.maximum(counts, 1), np.float64)


def labels_of(
    probabilities: NDArray[np.float32], known: NDArray[np.bool_], params: PseudoLabelParams
) -> NDArray[np.uint8]:
    """Make training targets: 1 at p > 0.5, else 0, or, with `targets: soft`, the codes of `cloudcover.masks.codec`.

    Pixels without data are 255; with `uncertain_pixels: ignore`, so are unconfident pixels.
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
    predictions: OutOfFold,
    tta: Tta,
    params: PseudoLabelParams,
    nodata: int,
    out: Path,
    previous: PseudoLabels | None = None,
) -> pd.DataFrame:
    """Relabel the candidates of a round, and decide which pseudo-labels are good enough to learn from.

    A round may accept none.

    Args:
        store: The packed chips.
        manifest: `tables.MANIFEST`: the verdicts after the round.
        folds: `tables.FOLDS`.
        predictions: Out-of-fold probabilities of the round's models.
        tta: Policy of these probabilities.
        params: Rule for acceptance.
        nodata: Value of pixels without data [DN].
        out: Folder for `masks.npy` (N x H x W uint8 of {0, 1, 255}, one row per candidate) or, if soft,
            `probabilities.npy` (the same shape, see `cloudcover.masks.codec`), and, written last, `manifest.csv`
            (`tables.ROUND`).
        previous: The pseudo-labels of the round before.

    Returns:
        The content of `manifest.csv`.

    Raises:
        TeacherError: See `check_teacher`.
    """
    chip_ids = candidates(manifest, folds)
    check_teacher(predictions, folds, chip_ids)
    out.mkdir(parents=True, exist_ok=True)
    for old in (HARD, SOFT):
        (out / old).unlink(missing_ok=True)
    file = out / (SOFT if params.targets == "soft" else HARD)
    size = store.chips(store.index.index[:1].tolist()).shape[-1]
    rows: list[dict[str, object]] = []
    heat = temperatures(store, manifest, predictions, tta)
    log.info("temperatures by fold: %s", ", ".join(f"{fold}: {value:.2f}" for fold, value in heat.items()))
    with atomic(file) as part, tqdm(total=len(chip_ids), desc="pseudo-label", unit="chip", disable=None) as bar:
        labels = create_array(part, np.uint8, (len(chip_ids), size, size))
        for batch in store.batches(chip_ids, BATCH):
            raw = predictions.probabilities(batch, tta)
            of_chips = predictions.table.loc[batch, "fold"].map(heat)
            probabilities = np.stack([apply_temperature(p, t) for p, t in zip(raw, of_chips, strict=True)])
            known = ~(store.chips(batch) == nodata).any(axis=1)
            made = labels_of(probabilities, known, params)
            labels[len(rows) : len(rows) + len(batch)] = made
            masks = harden_soft_labels(made) if params.targets == "soft" else made
            shares = confident_share(probabilities, known, params.pixel_confidence)
            for chip_id, mask, given, share in zip(batch, masks, store.labels(batch), shares, strict=True):
                accepted = bool(share > params.chip_confidence)
                entry = {"chip_id": chip_id, "row": len(rows), "accepted": accepted, "confident_share": share}
                rows.append({**entry, **_describe(mask, given), **_changed(chip_id, mask, previous)})
            bar.update(len(batch))
        labels.flush()
    columns = [name for name in tables.ROUND.columns if name not in (*tables.MANIFEST.columns, "change")]
    judged = pd.DataFrame(rows, columns=["chip_id", "accepted", *columns]).set_index("chip_id")
    if params.quota and rows:
        trusted = manifest.loc[manifest["label"] == "human", "chip_id"]
        judged["accepted"] = within_quota(judged, store.index.loc[trusted, "label_coverage_share"])
    table = _join(manifest, judged, previous)
    tables.ROUND.write(table, out / "manifest.csv")
    _report(table)
    return table


def _join(manifest: pd.DataFrame, made: pd.DataFrame, previous: PseudoLabels | None) -> pd.DataFrame:
    """Add to the verdicts the result for each candidate, and the changes since the round before."""
    table = manifest[list(tables.MANIFEST.columns)].join(made, on="chip_id")
    accepted = table["accepted"].eq(True)
    was = table["chip_id"].isin(previous.accepted() if previous else [])
    table.loc[accepted, "label"] = "pseudo"
    table["row"] = table["row"].fillna(NO_ROW).astype(int)
    changes = {(False, True): "added", (True, True): "kept", (True, False): "dropped", (False, False): "none"}
    table["change"] = [changes[pair] for pair in zip(was, accepted, strict=True)]
    return tables.ROUND.check(table.drop(columns="accepted"), "labels after a round")


def _describe(mask: NDArray[np.uint8], given: NDArray[np.uint8]) -> dict[str, float]:
    """Return the coverage of a mask and its IoU with the given label (NaN without a label)."""
    known = mask != IGNORE_INDEX
    both = known & (given != IGNORE_INDEX)
    union = int((((mask == 1) | (given == 1)) & both).sum())
    intersection = int(((mask == 1) & (given == 1) & both).sum())
    iou = float("nan") if not both.any() else intersection / union if union else 1.0
    return {"coverage_share": float((mask == 1).sum() / max(1, known.sum())), "agreement_iou": iou}


def _changed(chip_id: str, mask: NDArray[np.uint8], previous: PseudoLabels | None) -> dict[str, float]:
    """Return the share of pixels with another label than in the round before; NaN if the chip had none."""
    if previous is None or chip_id not in previous.table.index:
        return {"changed_pixels_share": float("nan")}
    return {"changed_pixels_share": float((previous.masks([chip_id])[0] != mask).mean())}


def _report(table: pd.DataFrame) -> None:
    counts, accepted = table["change"].value_counts(), int((table["label"] == "pseudo").sum())
    log.info(
        "%d given labels are used, %d rejected; accepted %d of %d pseudo-labels: %d added, %d kept, %d dropped%s",
        (table["label"] == "human").sum(), (table["verdict"] == "bad").sum(), accepted, (table["row"] >= 0).sum(),
        counts.get("added", 0), counts.get("kept", 0), counts.get("dropped", 0),
        "" if accepted else "; the next round learns only from given labels",
    )  # fmt: skip
    made = int((table["row"] >= 0).sum())
    if made and accepted < FEW * made:
        log.warning(
            "only %d of %d candidates are accepted, below %.0f %%: pseudo-labels have hardly any effect; lower "
            "pseudo_labels.chip_confidence or pixel_confidence", accepted, made, 100 * FEW,
        )  # fmt: skip
