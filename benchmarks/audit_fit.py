"""The weights of the audit's evidence, fitted on sets whose wrong labels are known; run by `audit.py --fit`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.metrics import average_precision_score, log_loss

from cloudcover.labels.score import adjust_prior, features

STRENGTHS = (1.0, 3.0, 10.0, 30.0)
"""Strengths of the ridge that are compared."""
FAVOURABLE = ("separable", "doubtful")
"""Features that speak for a label; the others speak against it."""
Judgements = tuple[pd.DataFrame, pd.DataFrame]
"""One set judged by the baseline's probabilities, and after round 1."""


def fit(sets: Sequence[Judgements]) -> str:
    """Compare strengths of the ridge with one set held out at a time, and fit the weights by the best.

    Ridge logistic regression that shrinks towards equal weights (1, or -0.5 for what speaks for a label) instead of 0,
    so that evidence that is rare in synthetic sets still counts on real ones. No weight changes its sign.

    Args:
        sets: At least two sets, each judged twice.

    Returns:
        The source of `cloudcover.labels.weights`.
    """
    rows = []
    for name, chosen in {"both": (0, 1), "first": (0,), "second": (1,)}.items():
        for strength in STRENGTHS:
            for held_out in range(len(sets)):
                others = [s[k] for i, s in enumerate(sets) if i != held_out for k in chosen]
                weights, prior = fit_weights(others, strength)
                for k, judgement in enumerate(("first", "second")):
                    table = sets[held_out][k]
                    wrong = _wrong(table)
                    p, _ = adjust_prior(expit(_design(table) @ weights), prior)
                    rows.append([name, strength, judgement, average_precision_score(wrong, p), log_loss(wrong, p)])
    found = pd.DataFrame(rows, columns=["fitted_on", "strength", "judgement", "ap", "log_loss"])
    means = found.groupby(["fitted_on", "strength", "judgement"]).mean().unstack("judgement")
    print(f"\nheld-out sets, mean\n{means.round(4).to_string()}")
    losses = found[found["fitted_on"] == "both"].groupby("strength")["log_loss"].mean()
    strength = float(losses.idxmin())
    weights, prior = fit_weights([t for s in sets for t in s], strength)
    print(f"\nstrength of the ridge {strength:g}")
    return source(weights, prior, _names(sets[0][0]))


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
            '"""Log-odds per unit of each column of `score.features`."""',
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
    favourable = [name in FAVOURABLE for name in _names(audits[0])]
    centre = np.array([*(-0.5 if good else 1.0 for good in favourable), 0.0])
    pull = strength * np.append(np.ones(len(favourable)), 0)

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        z, away = design @ weights, weights - centre
        value = np.sum(np.logaddexp(0, z) - wrong * z) + pull @ away**2 / 2
        return float(value), design.T @ (expit(z) - wrong) + pull * away

    bounds = [*((-np.inf, 0) if good else (0, np.inf) for good in favourable), (-np.inf, np.inf)]
    start = np.append(centre[:-1], logit(wrong.mean()))
    return np.asarray(minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x), float(wrong.mean())


def _names(audit: pd.DataFrame) -> list[str]:
    return features(audit).columns.tolist()


def _design(audit: pd.DataFrame) -> NDArray[np.float64]:
    x = features(audit).to_numpy(np.float64)
    return np.column_stack([x, np.ones(len(x))])


def _wrong(audit: pd.DataFrame) -> NDArray[np.bool_]:
    return (audit["error"] != "none").to_numpy()
