"""Real chips for `audit.py --real`: added to a synthetic set, with the audit compared with reviewers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import rasterio
from rasterio.enums import Resampling
from sklearn.metrics import average_precision_score

from cloudcover.data import tables
from cloudcover.data.geotiff import write_geotiff
from cloudcover.data.layout import layout_files, read_metadata, write_file_table

REJECTED, BELIEVABLE = 3, 1
"""Votes against a label, of four, from which it counts as wrong, and up to which it counts as right."""
WRONG, RIGHT, UNKNOWN = "rejected", "believable", "unknown"
"""What reviewers say about a real label, as the kind of its error."""


def opinions(folder: Path) -> pd.DataFrame:
    """Read what reviewers say about the labelled real chips.

    Args:
        folder: Real chips in the challenge's layout; `label_votes.csv` may say in `votes` how many of four reviewers
            reject a label.

    Returns:
        By chip, `votes` (NaN where there are none) and `error`: `WRONG`, `RIGHT` or `UNKNOWN`.
    """
    chips, path = read_metadata(folder), folder / "label_votes.csv"
    table = pd.DataFrame({"votes": np.nan}, index=pd.Index(chips.loc[chips["split"] == "train", "chip_id"]))
    if path.exists():
        table["votes"] = pd.read_csv(path, dtype={"chip_id": str}).set_index("chip_id")["votes"].reindex(table.index)
    said = [table["votes"] >= REJECTED, table["votes"] <= BELIEVABLE]
    return table.assign(error=np.select(said, [WRONG, RIGHT], UNKNOWN))


def add(folder: Path, raw: Path, size: int) -> pd.Series:
    """Add the real chips to a set in the challenge's layout.

    Args:
        folder: The real chips.
        raw: The set.
        size: Side to which larger chips are averaged (labels by majority) [pixels].

    Returns:
        The kind of error of each added label, by chip, see `opinions`.
    """
    said = opinions(folder)["error"]
    for path in layout_files(folder):
        if path.suffix == ".tif" and path.parts[0].startswith("train"):
            _copy(folder / path, raw / path, size, Resampling.mode if "labels" in path.parts[0] else Resampling.average)
    table = raw / "train_metadata.csv"
    both = pd.concat([tables.METADATA.read(table), tables.METADATA.read(folder / "train_metadata.csv")])
    tables.METADATA.write(both, table)
    write_file_table(raw, "synthetic and real")
    return said


def _copy(source: Path, target: Path, size: int, how: Resampling) -> None:
    with rasterio.open(source) as file:
        pixels = file.read(1, out_shape=(size, size), resampling=how)
        transform = file.transform @ file.transform.scale(file.width / size, file.height / size)
        write_geotiff(target, pixels, {"crs": file.crs, "transform": transform, "nodata": file.nodata})


def measure(error: pd.Series, scores: dict[str, pd.Series], rejected: dict[str, pd.Series]) -> dict[str, float]:
    """Compare ways of sorting labels with the reviewers.

    Args:
        error: Kind of error of each label, by chip; "none" for right synthetic ones.
        scores: Each way's score of each label, high = suspicious.
        rejected: Whether each way rejects it.

    Returns:
        For each way (its name is the key's end; the audit has none): `recall_rejected`, share of the labels rejected by
        reviewers that it rejects; `false_alarms`, number of believable labels that it rejects; `ap_real`, its average
        precision on these two groups; `ap_among`, the same with all right synthetic labels among the believable.
    """
    wrong, right = error == WRONG, error == RIGHT
    figures = {}
    for name, score in scores.items():
        end = "" if name == "audit" else f"_{name}"
        figures[f"recall_rejected{end}"] = float(rejected[name][wrong].mean())
        figures[f"false_alarms{end}"] = float(rejected[name][right].sum())
        for key, chosen in (("ap_real", wrong | right), ("ap_among", wrong | right | (error == "none"))):
            figures[f"{key}{end}"] = float(average_precision_score(wrong[chosen], score[chosen]))
    return figures


def ranking(folder: Path, table: pd.DataFrame) -> str:
    """Write a line per real label, the most suspicious first.

    Args:
        folder: The real chips.
        table: A judgement with `model_iou`, `softmin` and `error`.
    """
    votes = opinions(folder)["votes"]
    real = table[table["chip_id"].isin(votes.index)].sort_values("suspicion", ascending=False, kind="stable")
    real = real.assign(votes=real["chip_id"].map(votes))
    columns = ["chip_id", "votes", "error", "suspicion", "model_iou", "softmin", "reasons"]
    return real[columns].to_string(index=False, float_format="{:.2f}".format)
