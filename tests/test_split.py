"""Who may learn from what."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudcover.train.split import Split, SplitError, check, select


def tables_of(verdicts, folds):
    ids = [f"c{i}" for i in range(len(verdicts))]
    manifest = pd.DataFrame({"chip_id": ids, "verdict": verdicts})
    return manifest, pd.DataFrame({"chip_id": ids, "fold": folds, "scene": [f"s{f}" for f in folds]})


VERDICTS = ["clean", "clean", "bad", "unlabelled", "clean", "bad"]
FOLDS = [0, 1, 1, 1, 1, 0]


def test_the_first_round_learns_from_clean_labels_of_other_folds():
    selection = select(*tables_of(VERDICTS, FOLDS), fold=0)
    assert selection.training["chip_id"].tolist() == ["c1", "c4"]
    assert selection.validation["chip_id"].tolist() == ["c0"]


def test_accepted_pseudo_labels_of_other_folds_are_added_with_their_weight():
    pseudo = pd.DataFrame({"chip_id": ["c2", "c3"], "accepted": [True, False]})
    selection = select(*tables_of(VERDICTS, FOLDS), fold=0, pseudo=pseudo, pseudo_weight=0.5)
    assert selection.training.set_index("chip_id")["weight"].to_dict() == {"c1": 1.0, "c2": 0.5, "c4": 1.0}
    with pytest.raises(SplitError, match=r"judged near: c5; they belong to another student"):
        select(*tables_of(VERDICTS, FOLDS), fold=0, pseudo=pseudo.assign(chip_id=["c5", "c3"]))
    assert selection.training["label"].tolist() == ["human", "pseudo", "human"]


def test_the_baseline_learns_from_rejected_labels_but_is_judged_on_clean_ones():
    selection = select(*tables_of(VERDICTS, FOLDS), fold=0, learn_from="given")
    assert selection.training["chip_id"].tolist() == ["c1", "c2", "c4"]
    assert selection.validation["chip_id"].tolist() == ["c0"]


def test_the_oracle_learns_from_true_masks_of_all_labelled_chips():
    selection = select(*tables_of(VERDICTS, FOLDS), fold=0, learn_from="true")
    assert selection.training["chip_id"].tolist() == ["c1", "c2", "c4"]
    assert set(selection.training["label"]) == {"true"}
    assert set(selection.validation["label"]) == {"human"}


def test_nothing_to_validate_on_says_what_to_change():
    with pytest.raises(SplitError, match=r"0 to validate on; use fewer folds"):
        select(*tables_of(["bad", "clean"], [0, 1]), fold=0)


@given(
    st.lists(
        st.tuples(st.sampled_from(["clean", "bad", "unlabelled"]), st.integers(0, 2), st.booleans()),
        min_size=3,
        max_size=30,
    )
)
def test_no_selection_breaks_the_rules(chips):
    manifest, folds = tables_of([c[0] for c in chips], [c[1] for c in chips])
    pseudo = pd.DataFrame({"chip_id": manifest["chip_id"], "accepted": [c[2] and c[0] != "clean" for c in chips]})
    try:
        selection = select(manifest, folds, 0, pseudo)
    except SplitError:
        return
    check(selection, "scene")
    assert not set(selection.training["chip_id"]) & set(folds.loc[folds["fold"] == 0, "chip_id"])


def part(ids, label="human", scene="s"):
    return pd.DataFrame({"chip_id": ids, "label": label, "weight": 1.0, "scene": scene})


def test_leaks_are_refused():
    with pytest.raises(SplitError, match=r"pseudo-labels in validation: b"):
        check(Split(part(["a"]), part(["b"], label="pseudo", scene="t")), "scene")
    with pytest.raises(SplitError, match=r"scenes in training and in validation: s"):
        check(Split(part(["a"]), part(["b"])), "scene")
    with pytest.raises(SplitError, match=r"chips used twice: a"):
        check(Split(part(["a"]), part(["a"], scene="t")), "none")
    check(Split(part(["a"]), part(["b"])), "none")
