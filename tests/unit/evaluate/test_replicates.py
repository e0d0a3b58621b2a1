"""What repeated trainings say of recipes: false differences are rare, true ones are found."""

import numpy as np
import pandas as pd
import pytest

from cloudcover.evaluate.compare import pairs
from cloudcover.evaluate.gap import replicates
from cloudcover.evaluate.replicates import Replicates

LOCATIONS, CHIPS = 12, 5


def trained(rng, sets, trainings, gain=0.0):
    """Counts of a recipe.

    Its error varies by training as on the demo's set (sd of the Jaccard about 0.0095) and by location. What is hard at
    a location is hard for every recipe and follows from the set.
    """
    parts = []
    for number in range(sets):
        hard = np.random.default_rng(number).normal(0.1, 0.04, LOCATIONS)
        for training in range(trainings):
            error = hard + rng.normal(0, 0.008) + rng.normal(0, 0.02, LOCATIONS) - gain
            missed = np.clip(np.repeat(error, CHIPS) + rng.normal(0, 0.02, LOCATIONS * CHIPS), 0, 1)
            fn = np.rint(500 * missed).astype(int)
            parts.append(
                pd.DataFrame(
                    {
                        "chip_id": [f"c{i:02d}" for i in range(LOCATIONS * CHIPS)],
                        "location": np.repeat([f"p{i}" for i in range(LOCATIONS)], CHIPS),
                        "tp_pixels": 500 - fn, "fp_pixels": 0, "fn_pixels": fn, "tn_pixels": 500,
                        "set": number, "training": training,
                    }
                )
            )  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def share_that_differs(sets, trainings, gain=0.0, repetitions=40):
    rng = np.random.default_rng(5)
    found = [
        pairs({"a": trained(rng, sets, trainings), "b": trained(rng, sets, trainings, gain)}, 100, 0).iloc[0]
        for _ in range(repetitions)
    ]
    return np.mean([row.get("differs", row.get("models_differ")) for row in found])


@pytest.mark.parametrize(("sets", "trainings"), [(5, 1), (1, 3)])
def test_trainings_of_one_recipe_differ_in_at_most_a_tenth_of_pairs(sets, trainings):
    assert share_that_differs(sets, trainings) <= 0.1


def test_single_trainings_of_one_recipe_often_differ_and_only_models_are_spoken_of():
    assert share_that_differs(1, 1) > 0.15
    rng = np.random.default_rng(0)
    table = pairs({"a": trained(rng, 1, 1), "b": trained(rng, 1, 1)}, 100, 0)
    assert "models_differ" in table
    assert "differs" not in table
    repeated = pairs({"a": trained(rng, 1, 2), "b": trained(rng, 1, 2)}, 100, 0)
    assert "differs" in repeated
    assert "models_differ" not in repeated


def test_a_gain_of_three_trainings_deviations_is_found_on_five_sets():
    assert share_that_differs(5, 2, gain=0.024, repetitions=15) > 0.9


def test_the_interval_over_sets_is_students_of_their_means():
    found = replicates(pd.concat([trained(np.random.default_rng(1), 4, 2).assign(run="a")]))
    means = found.chains["a"].groupby("set").mean()
    half = 3.182446 * means.std(ddof=1) / 2
    estimate = found.estimate({"a": 1})
    assert (estimate.value, estimate.high - estimate.low) == pytest.approx((means.mean(), 2 * half))


def test_fiellers_interval_agrees_with_resampled_ratios_where_the_gap_is_wide():
    rng = np.random.default_rng(2)
    base, final, oracle = (trained(rng, 30, 1, gain) for gain in (0.0, 0.04, 0.05))
    found = Replicates.of({"baseline": base, "final": final, "oracle": oracle}, 100, 0)
    ratio = found.ratio({"final": 1, "baseline": -1}, {"oracle": 1, "baseline": -1})
    values = found.chains.to_numpy()
    drawn = values[rng.integers(0, 30, (4000, 30))].mean(axis=1)
    ratios = (drawn[:, 1] - drawn[:, 0]) / (drawn[:, 2] - drawn[:, 0])
    assert (ratio.low, ratio.high) == pytest.approx(tuple(np.percentile(ratios, [2.5, 97.5])), abs=0.03)


def test_runs_of_other_repetitions_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="b: does not have the same sets and trainings as a"):
        Replicates.of({"a": trained(rng, 2, 1), "b": trained(rng, 1, 1)}, 100, 0)
