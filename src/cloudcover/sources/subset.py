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
        try:
            lines = Path(subset).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise SubsetError(f"data.subset: {subset} cannot be read: {error}") from None
        subset = [name for line in lines if (name := line.strip())]
    if isinstance(subset, list):
        if unknown := set(subset) - {*chips["chip_id"], *chips["location"]}:
            raise SubsetError(f"data.subset: the set has no chip or location {listed(sorted(unknown))}")
        frame = frame[frame["chip_id"].isin(subset) | frame["location"].isin(subset)]
    elif subset is not None:
        rank = frame["chip_id"].map(lambda chip: hashlib.sha256(chip.encode()).hexdigest()).groupby(frame["split"])
        number = subset if isinstance(subset, int) else (rank.transform("size") * subset).round().clip(lower=1)
        frame = frame[rank.rank(method="first") <= number]
    if frame.empty:
        raise SubsetError(f"data.splits {splits} with data.subset {subset} leave none of {len(chips)} chips")
    return frame
