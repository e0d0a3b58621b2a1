"""Statistics of a round's pseudo-labels by location, and their stability between rounds."""

from __future__ import annotations

import pandas as pd

from cloudcover.data import tables


def by_location(labels: pd.DataFrame, locations: pd.Series, number: int) -> pd.DataFrame:
    """Count a round's pseudo-labels by location, and compare confidence with agreement between rounds.

    If confidence is meaningful, the labels of accepted chips change less between rounds than those of refused chips.

    Args:
        labels: `tables.ROUND` of the round.
        locations: Location of each chip, indexed by chip_id.
        number: Number of the round.

    Returns:
        `tables.PSEUDO_LOCATIONS`, sorted by location. `confident_share` is the mean over candidates. `agreement_share`
        is the mean share of pixels with the same label as in the round before, over all candidates, the accepted and
        the refused ones. It is NaN without candidates and in the first round.
    """
    pseudo = labels[labels["row"] >= 0]
    accepted = pseudo["label"] == "pseudo"
    same = 1 - pseudo["changed_pixels_share"]
    columns = {
        "location": locations.loc[pseudo["chip_id"]].to_numpy(),
        "candidate_chips": 1,
        "accepted_chips": accepted.astype(int),
        **{f"{change}_chips": (pseudo["change"] == change).astype(int) for change in ("added", "kept", "dropped")},
        "confident_share": pseudo["confident_share"],
        "agreement_share": same,
        "agreement_accepted_share": same.where(accepted),
        "agreement_refused_share": same.where(~accepted),
    }
    how = {name: "sum" if name.endswith("_chips") else "mean" for name in columns if name != "location"}
    found = pd.DataFrame(columns, index=pseudo.index).groupby("location", as_index=False).agg(how)
    return tables.PSEUDO_LOCATIONS.check(found.assign(round=number), "pseudo-labels by location")
