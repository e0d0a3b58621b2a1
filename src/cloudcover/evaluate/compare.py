"""Tables that compare models: in pairs, by test-time augmentation, by cloud cover and by kind of label."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cloudcover.config.sections import EvaluationParams, Tta
from cloudcover.data import tables
from cloudcover.evaluate.gap import difference, difference_column, differs
from cloudcover.evaluate.metrics import Statistic, bootstrap, coverage_bins, global_jaccard, mean_jaccard
from cloudcover.evaluate.replicates import Replicates
from cloudcover.evaluate.runs import ENSEMBLE

STATISTICS: dict[str, Statistic] = {"jaccard": global_jaccard, "location-mean": mean_jaccard}
PLAIN: Tta = "none"


def pairs(
    models: Mapping[str, pd.DataFrame], resamples: int, seed: int, statistic: Statistic = global_jaccard
) -> pd.DataFrame:
    """Compare each pair of models on the same chips: the difference with its paired 95 % interval.

    Args:
        models: Tables of counts (`tables.COUNTS`) by name; with the columns `replicates.CHAIN` for repeated trainings.
        resamples: Number of bootstrap resamples of locations.
        seed: Random seed for the bootstrap.
        statistic: Figure to compare; see `metrics.bootstrap`.

    Returns:
        `model` and `other`, their figures, `difference` (model - other) with `difference_low` and `difference_high`,
        and whether the interval excludes 0. The last column is called `differs` if trainings were repeated. Otherwise
        it is called `models_differ`, because repeating a training could change the result.

    Raises:
        ValueError: The models were not evaluated on the same chips and labels.
    """
    found = Replicates.of(models, resamples, seed, statistic)
    rows = []
    for other, model in itertools.combinations(models, 2):
        estimate = found.estimate(difference(model, other))
        rows.append(
            {"model": model, "other": other, "figure": found.figure(model).value,
             "other_figure": found.figure(other).value, **estimate.columns("difference"),
             difference_column(found): differs(estimate)}
        )  # fmt: skip
    return pd.DataFrame(rows)


def choose_models(counts: pd.DataFrame, names: Sequence[str], tta: str) -> dict[str, pd.DataFrame]:
    """Select the counts of each model.

    Args:
        counts: `tables.COUNTS`.
        names: Runs, or `run:policy`. By default all runs except `ensemble`, and except the member of a final model that
            has only one.
        tta: Policy for names without one.

    Raises:
        ValueError: The run or policy does not exist; the message lists those that do.
    """
    if not names:
        names = [name for name in dict.fromkeys(counts.loc[counts["tta"] == tta, "run"]) if name != ENSEMBLE]
        members = [name for name in names if name.startswith("final/")]
        names = [name for name in names if len(members) != 1 or name not in members]
    found = {}
    for name in names:
        run, _, policy = name.partition(":")
        found[name] = counts[(counts["run"] == run) & (counts["tta"] == (policy or tta))]
        if found[name].empty:
            there = sorted(set(counts["run"] + ":" + counts["tta"]))
            raise ValueError(f"the counts contain no {run}:{policy or tta}, only {', '.join(there)}")
    return found


def by_coverage(counts: pd.DataFrame, params: EvaluationParams, seed: int) -> pd.DataFrame:
    """Compute the global Jaccard by bands of the label's cloud cover, with intervals by location.

    For a band with a single location, the interval has zero width and no meaning.

    Args:
        counts: `tables.COUNTS` of one policy.
        params: Number of resamples.
        seed: Random seed for the bootstrap.

    Returns:
        A row per run and band: `run`, `coverage`, `chips`, `locations`, `jaccard`, `jaccard_low`, `jaccard_high`.
    """
    rows = []
    banded = counts.assign(coverage=coverage_bins(counts))
    for (run, band), part in banded.groupby(["run", "coverage"], sort=False, observed=True):
        estimate = bootstrap(part, "location", params.resamples, seed)
        size = {"chips": len(part), "locations": part["location"].nunique(dropna=False)}
        rows.append({"run": run, "coverage": band, **size, **estimate.columns("jaccard")})
    order = {band: place for place, band in enumerate(banded["coverage"].cat.categories)}
    return pd.DataFrame(rows).sort_values("coverage", key=lambda c: c.map(order), kind="stable", ignore_index=True)


def by_tta(
    counts: pd.DataFrame, policies: Sequence[Tta], folders: Sequence[Path], params: EvaluationParams, seed: int
) -> pd.DataFrame:
    """Compute Jaccard and prediction time of the final models under each policy, on the same chips.

    Args:
        counts: `tables.COUNTS` for the mean of the final models.
        policies: Policies to compare.
        folders: Outputs of `predict_oof` for the members, with their times.
        params: Number of resamples.
        seed: Random seed for the bootstrap.

    Returns:
        `tta`, `jaccard` with its interval, `gain` over no augmentation with its paired interval (empty without the
        policy `none`), and `ms_per_chip`: prediction time of these models, without reading chips.
    """
    models: dict[str, pd.DataFrame] = {policy: counts[counts["tta"] == policy] for policy in policies}
    times = pd.concat([tables.SECONDS.read(folder / "seconds.csv") for folder in folders])
    times["ms"] = 1000 * times["seconds"] / times["chips"]
    milliseconds = times.groupby("tta")["ms"].sum()
    gains = pd.DataFrame()
    if PLAIN in models and len(models) > 1:
        table = pairs({PLAIN: models[PLAIN], "same": models[PLAIN], **models}, params.resamples, seed)
        gains = table[table["other"] == PLAIN].set_index("model").rename(index={"same": PLAIN})
    rows = []
    for policy, part in models.items():
        estimate = bootstrap(part, "location", params.resamples, seed)
        row: dict[str, Any] = {"tta": policy, **estimate.columns("jaccard")}
        for name in ("", "_low", "_high"):
            row[f"gain{name}"] = gains.at[policy, f"difference{name}"] if policy in gains.index else np.nan
        rows.append(row | {"ms_per_chip": milliseconds[policy]})
    return pd.DataFrame(rows)
