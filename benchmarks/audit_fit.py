"""The weights of the audit's evidence, fitted on sets whose wrong labels are known; run by `audit.py --fit`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.metrics import average_precision_score, log_loss

from cloudcover.labels.manifest import suspects
from cloudcover.labels.score import estimate_suspicion, relative, signs
from cloudcover.labels.weights import WEIGHTS

STRENGTHS = (1.0, 3.0, 10.0, 30.0)
"""Strengths of the ridge that are compared."""
FAVOURABLE = ("separable", "doubtful")
"""Features that speak for a label; the others speak against it."""


def fit(sets: Mapping[str, Sequence[pd.DataFrame]]) -> str:
    """Compare strengths of the ridge by how they rank groups held out one at a time, and fit the weights by the best.

    The average precision decides, because `estimate_suspicion` adapts the level of the probabilities to each set.

    Ridge logistic regression that shrinks towards the present weights instead of 0, so that a fit on other sets adds to
    what earlier ones have learned. New evidence starts at 1, or at -0.5 if it speaks for a label, so that it counts on
    real sets even if it is rare in synthetic ones. No weight changes its sign.

    Args:
        sets: Judgements by group, at least two groups: families of noise, or sets of one family.

    Returns:
        The source of `cloudcover.labels.weights`.
    """
    found = pd.concat([_held_out(sets, strength) for strength in STRENGTHS])
    means = found.groupby("strength")[["ap", "log_loss"]].mean()
    strength = float(means["ap"].idxmax())
    print(f"\nstrength of the ridge, groups held out\n{means.round(4).to_string()}")
    chosen = found[found["strength"] == strength].drop(columns="strength").set_index("group")
    print(f"\ngroups judged by the weights of the others, strength {strength:g}\n{chosen.round(3).to_string()}")
    weights, prior = fit_weights([t for group in sets.values() for t in group], strength)
    return source(weights, prior, signs(next(iter(sets.values()))[0]).columns.tolist())


def _held_out(sets: Mapping[str, Sequence[pd.DataFrame]], strength: float) -> pd.DataFrame:
    """Judge each group's sets by weights that were fitted on the other groups."""
    rows = []
    for group, tables in sets.items():
        others = [table for name, part in sets.items() if name != group for table in part]
        weights, prior = fit_weights(others, strength)
        for table in tables:
            wrong = _wrong(table)
            found = signs(table)
            named = dict(zip(found, weights, strict=False))  # the last weight is the intercept
            suspicion = pd.Series(estimate_suspicion(found, named, weights[-1], prior))
            rejected = suspicion.index.isin(suspects(suspicion, None))
            rows.append(
                {
                    "group": group,
                    "strength": strength,
                    "rate_true": wrong.mean(),
                    "rate_estimated": suspicion.mean(),
                    "ap": average_precision_score(wrong, suspicion) if wrong.any() else np.nan,
                    "log_loss": log_loss(wrong, suspicion, labels=[False, True]),
                    "rejected": rejected.sum(),
                    "precision": wrong[rejected].mean() if rejected.any() else np.nan,
                    "recall": rejected[wrong].mean() if wrong.any() else np.nan,
                }
            )
    return pd.DataFrame(rows)


def source(weights: NDArray[np.float64], prior: float, names: Sequence[str]) -> str:
    """Write the module of the weights: one per name and, last, the intercept."""
    lines = [f'    "{name}": {round(weight, 2) + 0:.2f},' for name, weight in zip(names, weights[:-1], strict=True)]
    return "\n".join(
        [
            '"""Weights of the evidence, fitted on synthetic sets only. Written by `benchmarks/audit.py --fit`."""',
            "",
            f"PRIOR = {prior:.3f}",
            '"""Share of wrong labels in the sets that the weights were fitted on."""',
            f"INTERCEPT = {weights[-1]:.2f}",
            "WEIGHTS = {",
            *lines,
            "}",
            '"""Log-odds per unit of each column of `score.relative`."""',
            "",
        ]
    )


def fit_weights(audits: Sequence[pd.DataFrame], strength: float) -> tuple[NDArray[np.float64], float]:
    """Fit the weights of the features and, last, the intercept.

    Args:
        audits: `tables.AUDIT` with `error`.
        strength: Strength of the ridge.

    Returns:
        Weights, and the share of wrong labels at which they hold.
    """
    design = np.concatenate([_design(t) for t in audits])
    wrong = np.concatenate([_wrong(t) for t in audits]).astype(np.float64)
    names = signs(audits[0]).columns.tolist()
    favourable = [name in FAVOURABLE for name in names]
    centre = np.array([*(WEIGHTS.get(n, -0.5 if good else 1.0) for n, good in zip(names, favourable, strict=True)), 0])
    pull = strength * np.append(np.ones(len(favourable)), 0)

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        z, away = design @ weights, weights - centre
        value = np.sum(np.logaddexp(0, z) - wrong * z) + pull @ away**2 / 2
        return float(value), design.T @ (expit(z) - wrong) + pull * away

    bounds = [*((-np.inf, 0) if good else (0, np.inf) for good in favourable), (-np.inf, np.inf)]
    start = np.append(centre[:-1], logit(wrong.mean()))
    return np.asarray(minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x), float(wrong.mean())


def _design(audit: pd.DataFrame) -> NDArray[np.float64]:
    x = relative(signs(audit), (~_wrong(audit)).astype(np.float64)).to_numpy(np.float64)
    return np.column_stack([x, np.ones(len(x))])


def _wrong(audit: pd.DataFrame) -> NDArray[np.bool_]:
    return (audit["error"] != "none").to_numpy()
