"""Descriptions of the audit's reasons, with the figures behind them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple


class Words(NamedTuple):
    """The description of a reason.

    Attributes:
        title: Name for readers.
        text: One sentence.
        figures: Format string for the audit's columns; omitted if the audit lacks one of them.
    """

    title: str
    text: str
    figures: str = ""


REASONS = {
    "empty_over_cloud": Words(
        "empty over cloud",
        "The label is almost empty, but the model sees cloud.",
        "label {label_share:.0%} cloud, model {predicted_share:.0%}",
    ),
    "inverted": Words(
        "inverted",
        "Cloud and clear seem to be swapped.",
        "IoU with the model {oof_iou:.2f}, inverted {inverted_iou:.2f}",
    ),
    "swapped": Words(
        "swapped",
        "The label resembles the clouds of another chip more than its own.",
        "correlation {own_correlation:.2f} with its own chip, {other_correlation:.2f} with another",
    ),
    "shifted": Words(
        "shifted",
        "The label is shifted relative to the clouds.",
        "moved by {best_shift_pixels:.0f} pixels, IoU with the model rises from {oof_iou:.2f} to {shifted_iou:.2f}",
    ),
    "coarse": Words(
        "coarse",
        "The outline is much coarser than that of the clouds.",
        "its length is {outline_ratio:.2f} of the model's",
    ),
    "artefact": Words(
        "artefact",
        "The outline has long straight edges, unlike clouds.",
        "{straight_edge_share:.0%} of the outline is straight",
    ),
    "stripes": Words(
        "stripes",
        "Edges run along rows or columns of the image.",
        "{axis_edge_share:.0%} of the outline does",
    ),
    "false_cloud": Words(
        "false cloud",
        "Pixels are labelled cloud where the model is sure that they are clear.",
        "{false_share:.0%} of the chip",
    ),
    "missed_cloud": Words(
        "missed cloud",
        "Pixels are labelled clear where the model is sure that they are cloud.",
        "{missed_share:.0%} of the chip",
    ),
}
"""Reasons named by the audit, see `labels.score`; any other reason is shown by its own name."""


def title(reason: str) -> str:
    """Return a reason's name for readers."""
    return REASONS[reason].title if reason in REASONS else reason.replace("_", " ")


def explain(reason: str, evidence: Mapping[str, Any]) -> dict[str, str]:
    """Describe a reason by name, title, sentence and figures.

    Args:
        reason: Name from `reasons` in `tables.AUDIT`.
        evidence: The chip's row of the audit; columns may be missing or added.
    """
    words = REASONS.get(reason, Words(title(reason), ""))
    return {"name": reason, "title": words.title, "text": words.text, "figures": _figures(words.figures, evidence)}


def _figures(form: str, evidence: Mapping[str, Any]) -> str:
    numbers = {}
    for name, value in evidence.items():
        try:
            numbers[name] = float(value)
        except (TypeError, ValueError):
            continue
    finite = {name: value for name, value in numbers.items() if math.isfinite(value)}
    try:
        return form.format_map(finite)
    except KeyError:
        return ""
