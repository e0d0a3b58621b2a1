"""The comparison of students: its changes of the parameters, and its table of paired gains."""

from __future__ import annotations

import pandas as pd
import pytest
from students import RECIPES, changed, table_of

from cloudcover.config.params import Params


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_changes_what_it_names_and_nothing_else(name):
    before, after = (p.model_dump(mode="json") for p in (Params(), changed(Params(), RECIPES[name])))
    differing = {section for section in before if before[section] != after[section]}
    assert differing <= set(RECIPES[name])
    for section in differing:
        assert {key: after[section][key] for key in RECIPES[name][section]} == RECIPES[name][section]


def test_gains_are_paired_by_chain_and_intervals_are_students():
    rows = [
        {"chain": chain, "seed": seed, "recipe": recipe, "jaccard": jaccard, "learned": 10, "pseudo": 4}
        for chain, level in (("a", 0.5), ("b", 0.7))
        for seed in (0, 1)
        for recipe, jaccard in (("as_is", level), ("noise", level + (0.01 if chain == "a" else 0.03)))
    ]
    table = table_of(pd.DataFrame(rows), "as_is")
    gain = table.loc["noise"]
    assert gain["gain"] == pytest.approx(0.02)
    half = 12.706 * 0.01  # t of one degree of freedom; the gains 0.01 and 0.03 have a standard error of 0.01
    assert (gain["gain_low"], gain["gain_high"]) == (
        pytest.approx(0.02 - half, abs=1e-5),
        pytest.approx(0.02 + half, abs=1e-5),
    )
    assert table.loc["as_is", "gain"] == 0


def test_one_chain_has_no_interval():
    rows = [
        {"chain": "a", "seed": 0, "recipe": r, "jaccard": 0.5, "learned": 1, "pseudo": 0} for r in ("as_is", "soft")
    ]
    assert table_of(pd.DataFrame(rows), "as_is")["gain_low"].isna().all()
