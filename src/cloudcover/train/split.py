"""The chips and labels of a training run, and the rules about who may learn from what.

A table specifies for every chip the label that a run learns from: its given label (`human`), a `pseudo`-label, its
`true` mask, or `none`. Validation uses the given (or true) labels of the held-out fold that the run itself trusts. The
test part is in neither set.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from cloudcover.data.folds import TEST
from cloudcover.runtime.text import listed

COLUMNS = ["chip_id", "label", "weight", "scene", "fold"]


class SplitError(ValueError):
    """Chips that violate a rule of the method; the message names them."""


@dataclass(frozen=True)
class Split:
    """The chips of a run.

    Attributes:
        training: Table of chip_id, label (`human`, `pseudo` or `true`), weight in the loss, scene, and fold.
        validation: The same columns; label is `human` or `true`.
    """

    training: pd.DataFrame
    validation: pd.DataFrame


def all_labels(index: pd.DataFrame, label: str) -> pd.DataFrame:
    """List every chip with a given label: chip_id and `label`, `human` for the baseline or `true` for the oracle.

    Args:
        index: `tables.INDEX`.
        label: Label that a run learns from instead of cleaned labels.
    """
    return pd.DataFrame({"chip_id": index.loc[index["labelled"], "chip_id"].tolist(), "label": label})


def select(
    labels: pd.DataFrame, folds: pd.DataFrame, fold: int, pseudo_weight: float = 1.0, *, doubt_weight: bool = False
) -> Split:
    """Choose the chips that the model of a fold learns from and is validated on.

    Args:
        labels: Table of chip_id and label, such as `tables.MANIFEST` or `all_labels`.
        folds: `tables.FOLDS`.
        fold: The held-out fold.
        pseudo_weight: Loss weight of a pseudo-labelled chip.
        doubt_weight: Whether a given label that the audit has judged is weighted by 1 - its suspicion (`score`).

    Raises:
        SplitError: There is nothing to learn from or nothing to validate on, or chips have no fold.
    """
    if missing := sorted(set(labels["chip_id"]) - set(folds["chip_id"])):
        raise SplitError(
            f"{len(missing)} chips have labels but no fold, such as {missing[0]}: the folds belong to another set or "
            "are truncated; run the stage `folds` again"
        )
    columns = ["chip_id", "label", *(["source", "score"] if doubt_weight else [])]
    chips = folds.merge(labels[columns], on="chip_id", validate="one_to_one").sort_values("chip_id")
    chips["weight"] = chips["label"].map({"pseudo": pseudo_weight}).fillna(1.0)
    if doubt_weight:
        doubted = (chips["label"] == "human") & (chips["source"] == "audit")
        chips["weight"] = chips["weight"].where(~doubted, 1 - chips["score"])
    chips = chips[chips["label"] != "none"]
    training = chips[(chips["fold"] != fold) & (chips["fold"] != TEST)]
    validation = chips[(chips["fold"] == fold) & (chips["label"] != "pseudo")]
    split = Split(training[COLUMNS].reset_index(drop=True), validation[COLUMNS].reset_index(drop=True))
    if training.empty or validation.empty:
        raise SplitError(
            f"fold {fold}: {len(training)} chips to learn from and {len(validation)} to validate on; "
            "use fewer folds (folds.number), or let the audit reject fewer labels (labels.max_suspicion)"
        )
    return split


def check(split: Split, group: str) -> None:
    """Refuse leaks between training, validation and test part.

    Args:
        split: The chips of a run.
        group: `folds.group`; with `none`, scenes may be shared, but chips may not.

    Raises:
        SplitError: A pseudo-label is in validation, a chip is used twice, a scene is on both sides, or a chip belongs
            to the test part.
    """
    training, validation = split.training, split.validation
    pseudo = validation.loc[validation["label"] == "pseudo", "chip_id"]
    if len(pseudo):
        raise SplitError(f"pseudo-labels in validation: {listed(pseudo)}")
    both = pd.concat([training, validation])
    if (test := both.loc[both["fold"] == TEST, "chip_id"]).size:
        raise SplitError(f"chips of the test part in training or validation: {listed(test)}")
    if (twice := both.loc[both["chip_id"].duplicated(), "chip_id"]).size:
        raise SplitError(f"chips used twice: {listed(sorted(twice))}")
    shared = set(training["scene"]) & set(validation["scene"])
    if shared and group != "none":
        raise SplitError(f"scenes in training and in validation: {listed(sorted(shared))}")
