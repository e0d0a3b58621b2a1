"""Which chips a training may learn from."""

import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cloudcover.data.folds import TEST
from cloudcover.train.split import Split, SplitError, all_labels, check, select


def tables_of(labels, folds):
    ids = [f"c{i}" for i in range(len(labels))]
    learned = pd.DataFrame({"chip_id": ids, "label": labels})
    return learned, pd.DataFrame({"chip_id": ids, "fold": folds, "scene": [f"s{f}" for f in folds]})


LABELS = ["human", "human", "none", "pseudo", "human", "pseudo", "human"]
FOLDS = [0, 1, 1, 1, 1, 0, TEST]


def test_a_run_learns_from_other_folds_and_is_validated_by_the_given_labels_of_its_own():
    split = select(*tables_of(LABELS, FOLDS), fold=0)
    assert split.training["chip_id"].tolist() == ["c1", "c3", "c4"]
    assert split.training["label"].tolist() == ["human", "pseudo", "human"]
    assert split.validation["chip_id"].tolist() == ["c0"]  # c5 has a pseudo-label


def test_pseudo_labels_have_their_weight():
    split = select(*tables_of(LABELS, FOLDS), fold=0, pseudo_weight=0.5)
    assert split.training.set_index("chip_id")["weight"].to_dict() == {"c1": 1.0, "c3": 0.5, "c4": 1.0}


@pytest.mark.parametrize("label", ["human", "true"])
def test_baseline_and_oracle_take_every_label_on_both_sides(label):
    index = pd.DataFrame({"chip_id": ["c0", "c1", "c2", "c3"], "labelled": [True, True, True, False]})
    labels = all_labels(index, label)
    split = select(labels, tables_of([""] * 4, [0, 1, 1, 0])[1], fold=0)
    assert split.training["chip_id"].tolist() == ["c1", "c2"]
    assert split.validation["chip_id"].tolist() == ["c0"]
    assert set(split.training["label"]) == set(split.validation["label"]) == {label}
    check(split, "scene")


def test_nothing_to_validate_on_says_what_to_change():
    with pytest.raises(SplitError, match=r"0 to validate on; use fewer folds"):
        select(*tables_of(["none", "human"], [0, 1]), fold=0)


def test_a_chip_without_a_fold_is_named():
    labels, folds = tables_of(LABELS, FOLDS)
    with pytest.raises(SplitError, match=r"such as c6: the folds belong to another set"):
        select(labels, folds[:-1], fold=0)


@given(
    st.lists(
        st.tuples(st.sampled_from(["human", "none", "pseudo", "true"]), st.integers(TEST, 2)), min_size=3, max_size=30
    )
)
def test_no_selection_breaks_the_rules(chips):
    labels, folds = tables_of([c[0] for c in chips], [c[1] for c in chips])
    assume(any(f == 0 and label in ("human", "true") for label, f in chips))
    assume(any(f > 0 and label != "none" for label, f in chips))
    split = select(labels, folds, 0)
    check(split, "scene")
    of = dict(zip(folds["chip_id"], folds["fold"], strict=True))
    assert {of[chip] for chip in split.validation["chip_id"]} == {0}
    assert {of[chip] for chip in split.training["chip_id"]} <= {1, 2}
    assert "none" not in {*split.training["label"], *split.validation["label"]}


def part(ids, label="human", scene="s", fold=0):
    return pd.DataFrame({"chip_id": ids, "label": label, "weight": 1.0, "scene": scene, "fold": fold})


def test_leaks_are_refused():
    with pytest.raises(SplitError, match=r"pseudo-labels in validation: b"):
        check(Split(part(["a"]), part(["b"], label="pseudo", scene="t")), "scene")
    with pytest.raises(SplitError, match=r"scenes in training and in validation: s"):
        check(Split(part(["a"]), part(["b"])), "scene")
    with pytest.raises(SplitError, match=r"chips used twice: a"):
        check(Split(part(["a"]), part(["a"], scene="t")), "none")
    check(Split(part(["a"]), part(["b"])), "none")


@pytest.mark.parametrize("side", ["training", "validation"])
def test_a_chip_of_the_test_part_is_refused_on_either_side(side):
    sides = {"training": part(["a"]), "validation": part(["b"], scene="t")}
    sides[side] = part(["x"], scene="u", fold=TEST)
    with pytest.raises(SplitError, match=r"chips of the test part in training or validation: x"):
        check(Split(**sides), "none")


def test_a_label_in_doubt_counts_by_what_speaks_for_it():
    folds = pd.DataFrame({"chip_id": list("abcde"), "scene": list("abcde"), "fold": [1, 1, 1, 1, 0]})
    labels = pd.DataFrame({"chip_id": list("abcde"), "label": ["human", "human", "pseudo", "none", "human"]})
    labels = labels.assign(source=["audit", "reviewer", "audit", "audit", "audit"], score=[0.3, 0.4, 0.9, 0.8, 0.1])
    weights = select(labels, folds, 0, 0.5, doubt_weight=True).training.set_index("chip_id")["weight"]
    assert weights.to_dict() == {"a": 0.7, "b": 1, "c": 0.5}
    assert select(labels, folds, 0, 0.5).training["weight"].tolist() == [1, 1, 0.5]
