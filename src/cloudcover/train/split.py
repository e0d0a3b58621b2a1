"""Who may learn from what: the chips and labels of one training run.

Round 1 learns from the clean labels, round r + 1 from clean labels and the accepted pseudo-labels of round r.
Validation is always clean human labels of the held-out fold, and no scene is on both sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pandas as pd

from cloudcover.runtime.text import listed


class SplitError(ValueError):
    """The chips of a run break a rule of the method; the message names them."""


@dataclass(frozen=True)
class Split:
    """Chips of one run.

    Attributes:
        training: chip_id, label (`human`, `pseudo` or `true`), weight in the loss, scene.
        validation: chip_id, label (always `human`), weight, scene.
    """

    training: pd.DataFrame
    validation: pd.DataFrame


def select(
    manifest: pd.DataFrame,
    folds: pd.DataFrame,
    fold: int,
    pseudo: pd.DataFrame | None = None,
    *,
    pseudo_weight: float = 1.0,
    learn_from: Literal["clean", "given", "true"] = "clean",
) -> Split:
    """Chooses the chips that the model of a fold learns from and is judged on.

    Args:
        manifest: `tables.MANIFEST`.
        folds: `tables.FOLDS`.
        fold: the fold that is held out.
        pseudo: the rows of `tables.PSEUDO` of the round before that are for this fold, or None in the first round.
        pseudo_weight: weight of a pseudo-labelled chip in the loss.
        learn_from: `clean` labels; all `given` ones, the baseline without cleaning; or the `true` masks of all chips
            that have a label, which only synthetic sets know.

    Raises:
        SplitError: nothing to learn from, nothing to validate on, or a rule of `check` is broken.
    """
    chips = folds.merge(manifest[["chip_id", "verdict"]], on="chip_id", validate="one_to_one")
    verdicts = ["clean"] if learn_from == "clean" else ["clean", "bad"]
    human = chips[chips["verdict"].isin(verdicts)].assign(label="human", weight=1.0)
    training = human[human["fold"] != fold]
    if learn_from == "true":
        training = training.assign(label="true")
    if pseudo is not None:
        accepted = chips[chips["chip_id"].isin(pseudo.loc[pseudo["accepted"], "chip_id"])]
        if (accepted["fold"] == fold).any():
            raise SplitError(
                f"fold {fold}: pseudo-labels of chips that it is judged near: "
                f"{listed(accepted.loc[accepted['fold'] == fold, 'chip_id'])}; they belong to another student"
            )
        accepted = accepted.assign(label="pseudo", weight=pseudo_weight)
        training = pd.concat([training, accepted])
    validation = human[(human["fold"] == fold) & (human["verdict"] == "clean")]
    columns = ["chip_id", "label", "weight", "scene"]
    split = Split(
        training[columns].sort_values("chip_id", ignore_index=True),
        validation[columns].sort_values("chip_id", ignore_index=True),
    )
    if training.empty or validation.empty:
        raise SplitError(
            f"fold {fold}: {len(training)} chips to learn from and {len(validation)} to validate on; "
            "use fewer folds (folds.number), or let the audit reject fewer labels (labels.max_suspicion)"
        )
    return split


def check(split: Split, group: str) -> None:
    """Refuses a leak between training and validation.

    Args:
        split: the chips of a run.
        group: `folds.group`; with `none` scenes may be shared, chips may not.

    Raises:
        SplitError: a pseudo-label is in validation, a chip is used twice, or a scene is on both sides.
    """
    training, validation = split.training, split.validation
    pseudo = validation.loc[validation["label"] != "human", "chip_id"]
    if len(pseudo):
        raise SplitError(f"pseudo-labels in validation: {listed(pseudo)}")
    both = pd.concat([training["chip_id"], validation["chip_id"]])
    if both.duplicated().any():
        raise SplitError(f"chips used twice: {listed(sorted(both[both.duplicated()]))}")
    shared = set(training["scene"]) & set(validation["scene"])
    if shared and group != "none":
        raise SplitError(f"scenes in training and in validation: {listed(sorted(shared))}")
