"""Combination of the evidence into one probability that a label is wrong, with named reasons.

A real set has no true masks to learn from. So the weights of the evidence are fixed (`weights`, fitted once on
synthetic sets). The quantities that differ between sets are estimated without true masks: the typical disagreement of
model and labels, and the share of wrong labels.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit, logit

from cloudcover.data.label_errors import LABEL_ERRORS
from cloudcover.labels.scenes import shared
from cloudcover.labels.weights import INTERCEPT, PRIOR, WEIGHTS

Floats = NDArray[np.float64]

NAMED = 0.3
"""Minimum strength at which a kind of error is named as a reason."""
LEAST_DETERMINED = 0.03
"""Minimum reliable estimate of the share of wrong labels; a lower one may also mean that the evidence is too weak. Sets
without a wrong label are estimated at about 0.02 or less."""
RELATIVE = (
    "disagreement",
    "contradicted",
    "doubted",
    "low_iou",
    "low_confidence",
    "low_neighbour_iou",
    "learned_late",
    "doubtful",
)
"""Features relative to their median in the set, because generous outlines or weak models are not label errors."""
ROUNDS = 20
"""Upper bound on the estimates of the suspicions; they settle after three to six."""


def ramp(values: pd.Series | Floats, low: float, high: float) -> Floats:
    """Return 0 up to `low`, 1 from `high`, and a linear ramp between; it falls if `low` is above `high`."""
    return np.clip((np.asarray(values, np.float64) - low) / (high - low), 0, 1)


def strengths(evidence: pd.DataFrame) -> pd.DataFrame:
    """Score by soft rules in [0, 1] how much each label resembles each kind in `LABEL_ERRORS` (the columns)."""
    e = evidence
    empty = ramp(e["label_share"], 0.03, 0.005)
    two_classes = ramp(np.minimum(e["label_share"], 1 - e["label_share"]), 0.01, 0.03)
    disagrees = ramp(e["tolerant_iou"], 0.9, 0.7)
    return pd.DataFrame(
        {
            "empty_over_cloud": empty
            * np.maximum(ramp(e["missed_share"], 0.02, 0.15), ramp(e["predicted_share"], 0.1, 0.5)),
            "inverted": two_classes * ramp(e["inverted_iou"] - e["oof_iou"], 0.1, 0.5),
            "swapped": two_classes * disagrees * ramp(e["other_correlation"] - e["own_correlation"], 0.1, 0.5),
            "shifted": ramp(e["shift_gain_iou"], 0.05, 0.2) * ramp(e["shifted_iou"], 0.4, 0.7),
            "coarse": ramp(-np.log(e["outline_ratio"]), 0.25, 0.8) * ramp(e["oof_iou"], 0.85, 0.6),
            "artefact": ramp(e["straight_edge_share"], 0.15, 0.4) * ramp(e["axis_edge_share"], 0.7, 0.5),
            "stripes": ramp(e["axis_edge_share"], 0.25, 0.6),
            "false_cloud": ramp(e["false_share"], 0.02, 0.15),
            "missed_cloud": (1 - empty) * ramp(e["missed_share"], 0.02, 0.15),
        },
        index=e.index,
    )[list(LABEL_ERRORS)]


def signs(evidence: pd.DataFrame) -> pd.DataFrame:
    """Compute the strengths and general signs of a wrong label, each in [0, 1]; one row per chip.

    - `disagreement`: mean error of the models;
    - `contradicted`, `doubted`: pixels where all models, or any of them, contradict the label;
    - `low_iou`, `low_confidence`, `low_neighbour_iou`: the standard scores, the last from a model that has seen the
      neighbours;
    - `learned_late`: even a model trained on the label fits it late or never;
    - `inseparable`, `separable`: the label does not, or does, separate the chip's own colours, cloud being brighter;
    - `odd_colours`: bright white pixels outside the label, dark or green ones inside;
    - `doubtful`: the models are unsure about the whole chip;
    - `scene_residual`, `scene_against`: according to the models, the label has the same error as others of its scene.
    """
    e = evidence
    brighter = np.maximum(e["brightness_auc"], e["haze_auc"])
    colours = e["bright_outside_share"] + e["dark_inside_share"] + e["green_inside_share"]
    return strengths(e).assign(
        disagreement=share(e["disagreement_share"]),
        contradicted=share(e["all_against_share"]),
        doubted=share(e["any_against_share"]),
        low_iou=1 - e["oof_iou"],
        low_confidence=ramp(e["self_confidence"], 0.5, 0.0),
        low_neighbour_iou=1 - e["neighbour_iou"],
        learned_late=share(1 - e["early_agreement"]),
        inseparable=ramp(e["label_separability_auc"].fillna(1), 0.95, 0.7),
        separable=ramp(e["label_separability_auc"].fillna(0), 0.95, 1.0) * ramp(brighter, 0.4, 0.6),
        odd_colours=share(colours),
        doubtful=share(e["uncertainty_share"]),
        scene_residual=share(shared(e["predicted_share"] - e["label_share"], e["scene_residual_share"])),
        scene_against=share(shared(e["all_against_share"], e["scene_against_share"])),
    )


def relative(signs: pd.DataFrame, right: Floats) -> pd.DataFrame:
    """Subtract from the features in `RELATIVE` their median over the labels that are right.

    A median over all labels rises with the share of wrong ones, which then look less unusual than they are.

    Args:
        signs: Result of `signs` for N chips.
        right: N weights, the probability that each label is right [0-1].

    Returns:
        The features that `WEIGHTS` belong to; those in `RELATIVE` are in [-1, 1].
    """
    names = list(RELATIVE)
    usual = np.quantile(signs[names].to_numpy(), 0.5, axis=0, weights=right, method="inverted_cdf")
    return signs.assign(**dict(zip(names, (signs[names] - usual).to_numpy().T, strict=True)))


def share(values: pd.Series | Floats) -> Floats:
    """Map a share of pixels to a logarithmic scale: log(1 + v / u) / log(1 + 1 / u), u = 0.02; in [0, 1], 0 below 0.

    A step from 1 % to 5 % counts as much as one from 5 % to 20 %.
    """
    unit = 0.02
    return np.asarray(np.log1p(np.clip(values, 0, 1) / unit) / np.log1p(1 / unit), np.float64)


def adjust_prior(posterior: Floats, prior: float, floor: float = 1e-4) -> tuple[Floats, float]:
    """Adapt probabilities to the share of wrong labels in this set, estimated by EM from the probabilities alone.

    Saerens, Latinne & Decaestecker 2002, "Adjusting the outputs of a classifier to new a priori probabilities".

    Args:
        posterior: N probabilities that are valid for `prior`.
        prior: Share of wrong labels that they assume.
        floor: Smallest share, so that the estimate can grow again.

    Returns:
        The adapted probabilities, and the share, which is their mean.
    """
    odds = logit(np.clip(posterior, 1e-9, 1 - 1e-9)) - logit(prior)
    share = prior
    for _ in range(1000):
        adapted = expit(odds + logit(share))
        new = float(np.clip(adapted.mean(), floor, 1 - floor))
        if abs(new - share) < 1e-9:
            break
        share = new
    return expit(odds + logit(share)), share


def score_labels(evidence: pd.DataFrame) -> pd.DataFrame:
    """Add `suspicion` and `reasons` to the evidence.

    Args:
        evidence: One row per chip, as gathered by `audit.judge_labels`.

    Returns:
        The frame with `suspicion`, the probability that the label is wrong, and `reasons`, the kinds of error that the
        label resembles, strongest first. If a suspected label resembles none, the reason is false or missed cloud,
        whichever the model sees more of.
    """
    x = signs(evidence)
    suspicion = estimate_suspicion(x)
    strong = x[list(LABEL_ERRORS)].to_numpy()
    order = np.argsort(-strong, axis=1, kind="stable")
    fallback = np.where(evidence["label_share"] > evidence["predicted_share"], "false_cloud", "missed_cloud")
    reasons = []
    for i, ranked in enumerate(order):
        named = [LABEL_ERRORS[k] for k in ranked if strong[i, k] >= NAMED]
        if not named and suspicion[i] > 0.5:
            named = [fallback[i]]
        reasons.append(" ".join(named))
    return evidence.assign(suspicion=suspicion, reasons=reasons)


def estimate_suspicion(
    signs: pd.DataFrame, weights: Mapping[str, float] = WEIGHTS, intercept: float = INTERCEPT, prior: float = PRIOR
) -> Floats:
    """Estimate in turns which labels are right and what is usual for a right label, beginning with all of them.

    Args:
        signs: Result of `signs` for N chips.
        weights: Log-odds per unit of each column of `relative`.
        intercept: Log-odds where all of them are 0.
        prior: Share of wrong labels that weights and intercept hold for.

    Returns:
        N probabilities that the label is wrong, adapted to the share of wrong labels in this set.
    """
    suspicion = np.zeros(len(signs))
    for _ in range(ROUNDS if len(signs) else 0):
        before, x = suspicion, relative(signs, 1 - suspicion)
        raw = expit(intercept + sum(w * x[name].to_numpy() for name, w in weights.items()))
        suspicion, _ = adjust_prior(raw, prior)
        if np.abs(suspicion - before).max() < 1e-6:
            break
    return suspicion


def estimated_error_share(audit: pd.DataFrame) -> float:
    """Estimate the share of wrong labels as the mean suspicion [0-1]."""
    return float(audit["suspicion"].mean())


def is_determined(share: float) -> bool:
    """Return whether an estimated share of wrong labels is reliable, see `LEAST_DETERMINED`."""
    return share >= LEAST_DETERMINED


def error_share_text(audit: pd.DataFrame) -> str:
    """Format the estimated share of wrong labels in per cent, or state that it is not determined."""
    share = estimated_error_share(audit)
    return f"{100 * share:.1f} %" if is_determined(share) else "not determined"
