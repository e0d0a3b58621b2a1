"""A quota on accepted chips that are all cloud or all clear, by their proportion among human labels.

Models are most confident on chips without a cloud edge. If confidence alone decided, such chips would teach what every
model knows already and shift the share of cloud.
"""

from __future__ import annotations

import pandas as pd

from cloudcover.data.coverage import band_of


def within_quota(candidates: pd.DataFrame, trusted: pd.Series) -> pd.Series:
    """Apply the quota to accepted candidates.

    Args:
        candidates: Columns `accepted`, `coverage_share` and `confident_share`.
        trusted: Cover of the trusted given labels (0-1).

    Returns:
        `accepted`, without the least confident of the clear and full chips in excess. The ratio of clear, and of full,
        to partly cloudy chips is limited to that of the trusted labels.
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
