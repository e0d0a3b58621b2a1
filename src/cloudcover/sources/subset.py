"""Subsets of a set: by split, share or number, location, or list of chips."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd

from cloudcover.runtime.text import listed


class SubsetError(ValueError):
    """A value of `data.subset` that the set does not contain, or that leaves no chip."""


def select(chips: pd.DataFrame, splits: list[str], subset: int | float | list[str] | str | None) -> pd.DataFrame:
    """Choose the chips that `data.splits` and `data.subset` ask for, in their order.

    A share or number is drawn by a hash of the chip's id within each split. This needs no seed, and a larger subset
    contains every smaller one, so a set can grow without fetching a file twice.

    Args:
        chips: Table of chip_id, split and location.
        splits: Names of splits.
        subset: Share below 1, number of chips per split, list of chip ids and locations, file with one of these per
            line, or None for all.

    Raises:
        SubsetError: A chip or location is unknown, the file is unreadable, or no chip is left.
    """
    frame = chips[chips["split"].isin(splits)]
    if isinstance(subset, str):
        subset = _lines(Path(subset))
    if isinstance(subset, list):
        known = {*chips["chip_id"], *chips["location"]}
        if unknown := [name for name in subset if name not in known]:
            raise SubsetError(f"data.subset: the set has no chip or location {listed(unknown)}")
        frame = frame[frame["chip_id"].isin(subset) | frame["location"].isin(subset)]
    elif subset is not None:
        rank = frame["chip_id"].map(lambda chip: hashlib.sha256(chip.encode()).hexdigest())
        size = rank.groupby(frame["split"]).transform("size")
        number = subset if isinstance(subset, int) else (size * subset).round().clip(lower=1)
        frame = frame[rank.groupby(frame["split"]).rank(method="first") <= number]
    if frame.empty:
        raise SubsetError(f"data.splits {splits} with data.subset {subset} leave none of {len(chips)} chips")
    return frame


def _lines(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise SubsetError(f"data.subset: {path} cannot be read: {error.strerror}") from None
    return [line for line in lines if line]
