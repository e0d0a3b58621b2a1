"""Plots as inline SVG in the page's colours, so that one file works in light and dark mode and in print."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

WIDTH = 5.6
"""Width of a plot [inches]."""
INK, MUTED, LINE = "#010101", "#020202", "#030303"
SERIES = ("#040404", "#050505", "#060606", "#070707", "#080808")
_VARIABLES = {INK: "ink", MUTED: "muted", LINE: "line"} | {c: f"series{i}" for i, c in enumerate(SERIES, 1)}
"""Placeholder colours that `_svg` replaces by the page's CSS variables."""
LONGEST_NAME = 28
"""Maximum length of a name at an axis; longer names would leave no room for the plot."""

_STYLE: Any = {
    "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": LINE, "xtick.color": MUTED, "ytick.color": MUTED,
    "axes.grid": True, "grid.color": LINE, "grid.linewidth": 0.6, "axes.axisbelow": True, "legend.frameon": False,
    "axes.titlesize": 9, "axes.titleweight": "bold", "text.parse_math": False,  # a dollar sign in a name is literal
}  # fmt: skip


def runs(figures: Mapping[str, Mapping[str, float]], true: Mapping[str, Mapping[str, float]] | None) -> str:
    """Plot the global Jaccard of each run with its interval, on given labels and, if available, on true masks."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(WIDTH, 0.9 + 0.36 * len(figures))
        for values, shift, colour, name in (
            (figures, 0.0, SERIES[0], "given labels"),
            (true, 0.22, SERIES[1], "true masks"),
        ):
            if values is not None:
                points = pd.DataFrame([values[run] for run in figures])
                place = np.arange(len(points)) + shift
                low, high = points["jaccard"] - points["jaccard_low"], points["jaccard_high"] - points["jaccard"]
                axes.errorbar(
                    points["jaccard"],
                    place,
                    xerr=[low, high],
                    fmt="o",
                    color=colour,
                    capsize=3,
                    markersize=5,
                    label=name,
                )
        axes.set_yticks(np.arange(len(figures)), _shortened(figures))
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("global Jaccard on held-out scenes [0-1], 95 % interval by location")
        if true is not None:
            axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
        return _svg(figure, "runs")


def reliability(diagram: pd.DataFrame) -> str:
    """Plot the share of cloud over mean probability, before and after the temperature, with the ideal diagonal.

    Args:
        diagram: Rows of `calibration.reliability` with `temperature` (`before`, `after`).
    """
    with mpl.rc_context(_STYLE):
        figure, (top, bottom) = _figures(WIDTH, 4.6, [3, 1])
        top.plot([0, 1], [0, 1], color=MUTED, linestyle=":", label="perfect")
        for (name, part), colour in zip(diagram.groupby("temperature", sort=False), SERIES, strict=False):
            top.plot(part["probability"], part["cloud_share"], color=colour, marker="o", markersize=4, label=name)
            bottom.step(part["low"], part["pixels"] / part["pixels"].sum(), where="post", color=colour)
        top.set_ylabel("share of cloud [0-1]")
        bottom.set_yscale("log")
        bottom.yaxis.set_major_formatter("{x:g}")
        bottom.set_ylabel("pixels [0-1]")
        bottom.set_xlabel("predicted probability of cloud [0-1]")
        top.legend(loc="upper left")
        return _svg(figure, "reliability")


def curves(history: pd.DataFrame) -> str:
    """Plot learning curves, a column per run and a line per fold: validation Jaccard above, losses below.

    Args:
        history: Table by `tables.HISTORY` with `run` and `fold`.
    """
    names = list(dict.fromkeys(history["run"]))
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(max(4.0, 1.9 * len(names)), 4.4), layout="constrained")
        grid = figure.subplots(2, len(names), sharex=True, sharey="row", squeeze=False)
        for (top, bottom), name in zip(grid.T, names, strict=True):
            for number, (fold, part) in enumerate(history[history["run"] == name].groupby("fold")):
                colour = SERIES[number % len(SERIES)]
                top.plot(part["epoch"], part["validation_jaccard"], color=colour, label=f"fold {fold}")
                bottom.plot(part["epoch"], part["train_loss"], color=colour)
                bottom.plot(part["epoch"], part["validation_loss"], color=colour, linestyle=":")
            top.set_title(*_shortened([name]))
            bottom.set_xlabel("epoch")
        grid[0, 0].set_ylabel("validation Jaccard [0-1]")
        grid[1, 0].set_ylabel("loss (dotted: validation)")
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=len(labels))
        return _svg(figure, "curves")


def locations(final: pd.Series, baseline: pd.Series) -> str:
    """Plot the Jaccard by location of the final model and the baseline; both are indexed by location."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(WIDTH, 0.9 + 0.2 * len(final))
        place = np.arange(len(final))
        before = baseline.reindex(final.index)
        axes.hlines(place, np.minimum(before, final), np.maximum(before, final), color=LINE, linewidth=2)
        axes.scatter(before, place, color=MUTED, s=14, label="baseline", zorder=3)
        axes.scatter(final, place, color=SERIES[0], s=22, label="final", zorder=3)
        axes.set_yticks(place, _shortened(final.index))
        axes.set_ylim(len(final) - 0.4, -0.6)
        axes.set_xlabel("Jaccard of the location's given labels [0-1]")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
        return _svg(figure, "locations")


def suspicion(kept: NDArray[np.float64], rejected: NDArray[np.float64], threshold: float | None) -> str:
    """Plot a histogram of the audit's suspicion for kept and rejected labels, with logarithmic counts."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(WIDTH, 2.6)
        edges = np.linspace(0, 1, 41).tolist()
        axes.hist([kept, rejected], edges, stacked=True, color=[SERIES[0], SERIES[1]], label=["kept", "rejected"])
        axes.set_yscale("symlog", linthresh=10)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_ylim(bottom=0)
        if threshold is not None:
            axes.axvline(threshold, color=INK, linestyle="--", linewidth=1, label=f"threshold {threshold:g}")
        axes.set_xlabel("suspicion: probability that the label is wrong [0-1]")
        axes.set_ylabel("labels")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
        return _svg(figure, "suspicion")


def recall_by_error(recalls: Mapping[str, float]) -> str:
    """Plot the share of each kind of wrong label that was rejected."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(WIDTH, 0.7 + 0.24 * len(recalls))
        place = np.arange(len(recalls))
        axes.barh(place, list(recalls.values()), color=SERIES[0], height=0.62)
        axes.set_yticks(place, [_words(kind) for kind in recalls])
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("recall: share of these labels that were rejected [0-1]")
        return _svg(figure, "recall")


def rounds(names: Sequence[str], counts: pd.DataFrame) -> str:
    """Plot the accepted pseudo-labels of each round: added and kept above zero, dropped below."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(WIDTH, 2.2)
        place = np.arange(len(names))
        axes.bar(place, counts["kept"], 0.55, color=SERIES[0], label="kept")
        axes.bar(place, counts["added"], 0.55, bottom=counts["kept"], color=SERIES[2], label="added")
        axes.bar(place, -counts["dropped"], 0.55, color=SERIES[1], label="dropped")
        axes.axhline(0, color=MUTED, linewidth=0.8)
        axes.set_xticks(place, names)
        axes.set_ylabel("pseudo-labels")
        axes.grid(axis="x", visible=False)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
        return _svg(figure, "rounds")


def _words(name: str) -> str:
    return name.replace("_", " ")


def _shortened(names: Iterable[str]) -> list[str]:
    """Shorten names to fit at an axis; the page's tables show them in full."""
    return [name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…" for name in names]


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _figures(width: float, height: float, ratios: Sequence[float]) -> tuple[Figure, Sequence[Axes]]:
    """Create vertically stacked plots with a common horizontal axis."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(len(ratios), sharex=True, height_ratios=ratios))


def _svg(figure: Figure, name: str) -> str:
    """Convert a figure to an `<svg>` element with the page's font and CSS variables as colours.

    Equal figures give equal bytes.
    """
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}), warnings.catch_warnings():
        # Matplotlib uses its own font only to measure the text: the browser draws it.
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = re.sub(r"(?s)<metadata>.*?</metadata>", "", text[text.index("<svg") :])
    text = re.sub(r"<[^>]*>", lambda tag: _restyled(tag[0]), text)
    width = 72 * figure.get_size_inches()[0]
    size = f"min-width:{0.85 * width:.0f}px;max-width:{1.4 * width:.0f}px"
    return text.replace("<svg", f'<svg role="img" aria-label="plot: {name}" style="{size}"', 1)


def _restyled(tag: str) -> str:
    """Remove ids, fonts and sizes from a tag, and replace its colours by CSS variables; other text is unchanged."""
    for pattern, replacement in (
        (r"font-family: [^;\"]*;? ?", ""),
        (r' id="(?![mp][0-9a-f]{8,}")[^"]*"', ""),  # only markers and clip paths are referenced
        (r'^(<svg.*?) width="[^"]*"', r"\1"),
        (r'^(<svg.*?) height="[^"]*"', r"\1"),
    ):
        tag = re.sub(pattern, replacement, tag)
    for colour, variable in _VARIABLES.items():
        tag = tag.replace(colour, f"var(--{variable})")
    return tag
