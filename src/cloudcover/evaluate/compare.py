"""Tables that set models beside each other: pairs, test-time augmentation, cloud cover, and kinds of labels."""

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
    """Return the difference of each two models on the same chips, with its paired 95 % interval.

    Args:
        models: tables of counts (`tables.COUNTS`) by name; where trainings were repeated, with `replicates.CHAIN`.
        resamples: of locations.
        seed: of the resamples.
        statistic: the figure; see `metrics.bootstrap`.

    Returns:
        `model` and `other`, their figures, `difference` (model - other) with `difference_low` and `difference_high`,
        and whether the interval leaves out 0: as `differs` if trainings were repeated, and otherwise as
        `models_differ`, since another training of the same recipe might not.

    Raises:
        ValueError: the models were not evaluated on the same chips and labels.
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
    """Count by model.

    Args:
        counts: `tables.COUNTS`.
        names: runs, or `run:policy`; none: all runs but `ensemble`, and not the only member of the final model beside
            it.
        tta: the policy where a name has none.

    Raises:
        ValueError: there is no such run or policy; the message lists those that there are.
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
            raise ValueError(f"there is no {run}:{policy or tta} in the counts; there are {', '.join(there)}")
    return found


def by_coverage(counts: pd.DataFrame, params: EvaluationParams, seed: int) -> pd.DataFrame:
    """Global Jaccard by bands of the label's cloud cover, with intervals by location.

    A band of one location has an interval of no width, which means nothing.

    Args:
        counts: `tables.COUNTS` of one policy.
        params: number of resamples.
        seed: of the resamples.

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
    """Jaccard and time of the final models under each policy, on the same chips.

    Args:
        counts: `tables.COUNTS` of the mean of the final models.
        policies: what to compare.
        folders: outputs of `predict_oof` of the members, with their times.
        params: number of resamples.
        seed: of the resamples.

    Returns:
        `tta`, `jaccard` with its interval, `gain` over no augmentation with its paired interval (empty without the
        policy `none`), and `ms_per_chip`: prediction by the models that the figures are of, without reading chips.
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
