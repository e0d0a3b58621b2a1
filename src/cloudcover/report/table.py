"""The table of results for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cloudcover.runtime.files import read_json

BOUNDS = ("jaccard", "jaccard_low", "jaccard_high")
"""Keys of a figure and its interval in the files of figures."""


def runs_of(metrics: Mapping[str, Any]) -> list[str]:
    """List the runs in `metrics.json` in the order of the workflow: baseline, rounds, members, final, oracle.

    A single member is identical to the final model, and is omitted.
    """
    names = [name for name, value in metrics.items() if isinstance(value, dict) and "jaccard_location_mean" in value]
    members = [name for name in names if name.startswith("final/")]
    if len(members) == 1:
        names.remove(members[0])

    def place(name: str) -> tuple[int, int, str]:
        if name.startswith("round"):
            return 1, int(name.removeprefix("round")), name
        return {"baseline": 0, "final": 3, "oracle": 4}.get(name, 2), 0, name

    return sorted(names, key=place)


def rounds_of(metrics: Mapping[str, Any]) -> list[str]:
    """Name the rounds, in order."""
    return sorted(metrics.get("rounds", {}), key=lambda name: int(name.removeprefix("round")))


def interval(figures: Mapping[str, float], sign: bool = False) -> str:
    """Format a figure with its 95 % interval: `0.8731 (0.8412-0.9005)`, or `+0.0213 (+0.0101 to +0.0330)`."""
    if sign:
        return f"{figures['jaccard']:+.4f} ({figures['jaccard_low']:+.4f} to {figures['jaccard_high']:+.4f})"
    return f"{figures['jaccard']:.4f} ({figures['jaccard_low']:.4f}-{figures['jaccard_high']:.4f})"


def final_table(metrics: Path, truth: Path) -> str:
    """Format the figures of a run as plain text.

    Args:
        metrics: `reports/metrics.json`.
        truth: `reports/truth.json`; true masks get columns and lines only if they are known.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is not JSON, or does not hold the figures of a run.
    """
    figures, true = read_json(metrics), read_json(truth)
    try:
        return _final_table(figures, true)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{metrics} and {truth} do not hold the figures of one run ({type(error).__name__}: {error}): the rules "
            "`evaluate` and `evaluate_truth` write them again"
        ) from None


def _final_table(figures: Mapping[str, Any], true: Mapping[str, Any]) -> str:
    known = bool(true["known"])
    tested = figures["test_chips"]
    rows = [["run", "Jaccard on given labels", *(["Jaccard on true masks"] if known else [])]]
    for run in runs_of(figures):
        rows.append([run, interval(figures[run]), *([interval(true[run])] if known else [])])
    gains = [figures["gain_over_baseline"], *([true["gain_over_baseline"]] if known else [])]
    rows.append(["gain", *(interval(gain, sign=True) for gain in gains)])
    if gap := true.get("closed_gap"):
        rows.append(["gap", "", interval({name: gap[name.replace("jaccard", "gap")] for name in BOUNDS}, sign=True)])
        share = "not determined: the interval of the gap contains 0"
        if "closed_share" in gap:
            share = "{closed_share:.0%} ({closed_share_low:.0%} to {closed_share_high:.0%})".format(**gap)
        rows.append(["gap closed", "", share])
    where = f"Test part of {tested} chips, which nothing has learned from" if tested else "Held-out scenes"
    lines = [f"{where}: global Jaccard with 95 % interval by location", "", *_aligned(rows), ""]
    lines += _aligned(_label_rows(figures, true))
    return "\n".join(lines)


def few(row: Mapping[str, float]) -> str:
    """Format a warning about a round that accepts hardly any of its candidates."""
    return ", under 5 %" if row["candidates"] and row["accepted_share"] < 0.05 else ""


def _label_rows(figures: Mapping[str, Any], true: Mapping[str, Any]) -> list[list[str]]:
    labels = figures["labels"]
    given = labels.get("clean", 0) + labels.get("bad", 0)
    rows = [["labels", f"{given} given, {labels.get('bad', 0)} rejected, {labels.get('unlabelled', 0)} chips without"]]
    for name in rounds_of(figures):
        row = figures["rounds"][name]
        text = f"{row['given']} given labels used, {row['accepted']} of {row['candidates']} pseudo-labels accepted"
        text += few(row)
        text += f" ({row['added']} added, {row['kept']} kept, {row['dropped']} dropped)"
        if "jaccard" in (quality := true.get("rounds", {}).get(name, {})):
            text += f", Jaccard {quality['jaccard']:.4f} on true masks (given labels: {quality['jaccard_given']:.4f})"
        rows.append([name, text])
    if true["known"]:
        found = true["labels"]
        text = f"precision {found['precision']:.3f}, recall {found['recall']:.3f}"
        rows.append(["rejected", f"{text} of {found['wrong']} wrong labels"])
        kinds = found["recall_by_error"].items()
        rows += [[f"  {kind.replace('_', ' ')}", f"recall {share:.3f}"] for kind, share in kinds]
    return rows


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
