"""Acceptance by what masks can teach: no more chips of nothing but cloud, or of none, than people have labelled.

A confident model is most confident of chips that have no edge of a cloud. Accepted by confidence alone, they teach what
every model knows and shift the share of cloud.
"""

from __future__ import annotations

import pandas as pd

from cloudcover.data.coverage import band_of


def within_quota(candidates: pd.DataFrame, trusted: pd.Series) -> pd.Series:
    """Which candidates stay accepted.

    Args:
        candidates: `accepted`, `coverage_share` and `confident_share` of each.
        trusted: Cover of the given labels that are trusted (0-1).

    Returns:
        `accepted`, without the least confident of the clear and the full chips that are too many: beside a partly
        cloudy chip there may be as many of them as among the trusted labels.
    """
    given = trusted.map(band_of).value_counts()
    band = candidates["coverage_share"].map(band_of)
    ranked = candidates["confident_share"].where(candidates["accepted"]).sort_values(ascending=False, kind="stable")
    partly = int((candidates["accepted"] & (band == "partly")).sum())
    kept = candidates["accepted"] & (band == "partly")
    for name in ("clear", "full"):
        most = round(partly * given.get(name, 0) / max(1, given.get("partly", 0)))
        kept |= band.index.isin(ranked[band == name].dropna().index[:most])
    return kept
