"""Galleries of the report: the chips with the most wrong pixels, and rejected labels with their pseudo-labels."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from cloudcover.data.colours import PREDICTION_COLOUR
from cloudcover.data.store import ChipStore
from cloudcover.evaluate.runs import Masks
from cloudcover.masks.overlap import COLUMNS, jaccard_index
from cloudcover.masks.pseudo import PseudoLabels
from cloudcover.report import pictures
from cloudcover.report.pictures import LABEL_COLOUR

T = TypeVar("T")
SHOWN = 24
"""Maximum number of chips in a gallery."""


@dataclass(frozen=True)
class Card:
    """A chip in a gallery.

    Attributes:
        title: Id of the chip.
        facts: Short texts below the pictures.
        pictures: Pairs of caption and data URI.
        tag: Highlighted word, or an empty text.
    """

    title: str
    facts: list[str]
    pictures: list[tuple[str, str]]
    tag: str = ""


def spread(ranking: Sequence[T], number: int = SHOWN) -> list[T]:
    """Choose at most `number` entries, evenly spaced over the ranking, including the first and last."""
    if len(ranking) <= number:
        return list(ranking)
    return [ranking[i] for i in np.linspace(0, len(ranking) - 1, number).round().astype(int)]


def worst_chips(store: ChipStore, counts: pd.DataFrame, masks: Masks) -> list[Card]:
    """List the chips with the most wrong pixels, worst first.

    Args:
        store: The packed chips.
        counts: `tables.COUNTS` of one run.
        masks: Masks of that run.
    """
    wrong = (counts["fp_pixels"] + counts["fn_pixels"]).rename("wrong")
    order = counts.assign(wrong=wrong).sort_values(["wrong", "chip_id"], ascending=[False, True])
    order = order[order["wrong"] > 0].head(SHOWN)
    cards = []
    for row in order.to_dict("records"):
        chip_id = row["chip_id"]
        dn, label = store.chips([chip_id])[0], store.labels([chip_id])[0]
        predicted = masks([chip_id])[0] == 1
        pixels = np.array([row[name] for name in COLUMNS])
        facts = [
            f"Jaccard {jaccard_index(pixels):.3f}",
            f"{100 * row['wrong'] / pixels.sum():.0f}\N{NO-BREAK SPACE}% of pixels wrong",
        ]
        base = pictures.false_colour(dn, store.bands())
        base = pictures.true_colour(dn, store.bands()) if base is None else base
        both = pictures.outlined(pictures.outlined(base, label, LABEL_COLOUR), predicted, PREDICTION_COLOUR)
        shown = [
            ("image", pictures.photo_uri(pictures.true_colour(dn, store.bands()))),
            ("outlines", pictures.photo_uri(both)),
            ("errors", pictures.flat_uri(pictures.errors_picture(predicted, label))),
        ]
        cards.append(Card(chip_id, [*facts, row["scene"]], shown))
    return cards


def rejected_labels(store: ChipStore, manifest: pd.DataFrame, pseudo: PseudoLabels) -> list[Card]:
    """List rejected labels from the most to the least suspicious, evenly sampled if there are many.

    Args:
        store: The packed chips.
        manifest: `tables.MANIFEST`.
        pseudo: Pseudo-labels of the last round, which has none for labels that it trusts.
    """
    rejected = manifest[manifest["verdict"] == "bad"].sort_values(["score", "chip_id"], ascending=[False, True])
    cards = []
    for row in spread(rejected.to_dict("records")):
        chip_id = row["chip_id"]
        dn, label = store.chips([chip_id])[0], store.labels([chip_id])[0]
        shown = [
            ("image", pictures.photo_uri(pictures.true_colour(dn, store.bands()))),
            ("given label", pictures.flat_uri(pictures.mask_picture(label))),
        ]
        facts, tag = _why(row), ""
        if chip_id in pseudo.table.index:
            made = pseudo.table.loc[chip_id]
            shown.append(("pseudo-label", pictures.flat_uri(pictures.mask_picture(pseudo.masks([chip_id])[0]))))
            facts.append(f"{100 * made['confident_share']:.0f}\N{NO-BREAK SPACE}% of pixels confident")
            tag = "accepted" if made["label"] == "pseudo" else "not accepted"
        cards.append(Card(chip_id, facts, shown, tag))
    return cards


def _why(row: Mapping[Hashable, Any]) -> list[str]:
    """Format the suspicion and reasons of a rejected label."""
    facts = [] if np.isnan(row["score"]) else [f"suspicion {row['score']:.2f}"]
    if row["source"] == "audit":
        return facts + [reason.replace("_", " ") for reason in row["reason"].split()]
    return [*facts, f"rejected by {row['source']}", *filter(None, [row["reason"]])]
