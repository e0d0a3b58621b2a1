"""Scenes: the satellite image that chips were cut from, and its time."""

from __future__ import annotations

import pandas as pd

UNDATED = "undated"


def times(datetime: pd.Series) -> pd.Series:
    """Parse ISO 8601 texts into UTC timestamps.

    Args:
        datetime: Texts such as `2020-04-29T08:20:47Z`; a time without zone is UTC; empty or missing = unknown.

    Returns:
        Series of UTC timestamps with the same index; NaT where unknown.

    Raises:
        ValueError: A text is not ISO 8601; the message names the texts.
    """
    text = datetime.fillna("").astype(str).str.strip()
    # Each text is parsed only once, because a set has few scenes and many chips.
    parsed = {t: pd.to_datetime(t, format="ISO8601", utc=True, errors="coerce") for t in text.unique() if t}
    wrong = text[text.map(lambda t: bool(t) and pd.isna(parsed[t]))]
    if len(wrong):
        shown = ", ".join(repr(value) for value in wrong.iloc[:5])
        raise ValueError(
            f"{len(wrong)} datetimes are not ISO 8601 ({shown}); write 2020-04-29T08:20:47Z, or nothing if unknown"
        )
    return pd.to_datetime(text.map(parsed), utc=True)


def scene_of(location: pd.Series, datetime: pd.Series) -> pd.Series:
    """Name the scene of each chip: `location@datetime`, with the time in UTC.

    Different spellings of the same instant (`Z`, `+00:00`, no zone) give the same scene. Chips of a location without a
    datetime form one scene, `location@undated`, because they may share an image.

    Args:
        location: Name of each chip's location; empty = unknown, which counts as one location.
        datetime: ISO 8601 texts, "" = unknown; same index as `location`.

    Returns:
        Series of `str` with the index of `location`.

    Raises:
        ValueError: A datetime is not ISO 8601.
    """
    code, stamps = pd.factorize(times(datetime))
    # NaT has the code -1, which selects the last name.
    names = pd.Index([*(stamp.isoformat().replace("+00:00", "Z") for stamp in stamps), UNDATED])
    return (location.fillna("").astype(str) + "@" + names[code]).rename("scene")
