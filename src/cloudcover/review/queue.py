"""The labels to judge, and their order."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from cloudcover.data import tables
from cloudcover.labels.reasons import explain, title
from cloudcover.review.verdicts import Verdict

UNJUDGED = "none"
"""The filter for labels without a verdict."""
PAUSE_S = 60.0
"""Longer gaps between two verdicts count as this much working time."""
RECENT = 100
"""Number of most recent verdicts that determine the rate."""


class Queue:
    """The labelled chips, most suspicious first; without an audit, scene by scene.

    Args:
        index: `tables.INDEX`. Chips without a label are omitted, because there is nothing to judge.
        audit: `tables.AUDIT`, possibly with further columns, or None.

    Attributes:
        table: chip_id (also the index), location, scene, datetime, label_coverage_share, suspicion (NaN without an
            audit), reasons.
        audited: Whether there is an audit.
    """

    def __init__(self, index: pd.DataFrame, audit: pd.DataFrame | None) -> None:
        columns = ["chip_id", "location", "scene", "datetime", "label_coverage_share"]
        table = index.loc[index["labelled"], columns].reset_index(drop=True)
        judged = tables.AUDIT.empty() if audit is None else audit
        self.evidence = judged.set_index("chip_id")
        table = table.join(self.evidence[["suspicion", "reasons"]], on="chip_id")
        table["reasons"] = table["reasons"].fillna("")
        order, up = ["suspicion", "scene", "chip_id"], [False, True, True]
        self.table = table.sort_values(order, ascending=up).set_index("chip_id", drop=False)
        self.audited = audit is not None
        self._ids = list(self.table["chip_id"])
        self._scenes = {str(name): list(chips) for name, chips in table.groupby("scene")["chip_id"]}

    def select(self, verdicts: Mapping[str, Verdict], wanted: Mapping[str, str]) -> pd.DataFrame:
        """Return rows of `table` with `verdict` and `time` (empty without a verdict), in the order of work.

        Args:
            verdicts: Verdicts by chip.
            wanted: Any of `location`, `scene`, `reason`, `verdict` (`none`: not judged) and `order` (`least`: the
                least suspicious first); an empty value disables the filter.
        """
        table = self.table
        for column in ("location", "scene"):
            if value := wanted.get(column):
                table = table[table[column] == value]
        if reason := wanted.get("reason"):
            table = table[[reason in reasons.split() for reasons in table["reasons"]]]
        rows = [verdicts.get(chip) for chip in table["chip_id"].tolist()]
        table = table.assign(verdict=[r.verdict if r else "" for r in rows], time=[r.time if r else "" for r in rows])
        if verdict := wanted.get("verdict"):
            table = table[table["verdict"] == ("" if verdict == UNJUDGED else verdict)]
        return table[::-1] if wanted.get("order") == "least" else table

    def options(self) -> dict[str, list[dict[str, Any]]]:
        """Return the filter options with numbers of chips; scenes include their location."""
        scenes = self.table.value_counts(["location", "scene"]).sort_index().reset_index(name="chips")
        places = self.table["location"].value_counts().sort_index()
        reasons = self.table["reasons"].str.split().explode().value_counts()
        return {
            "location": [{"name": name, "chips": int(n)} for name, n in places.items()],
            "scene": [dict(zip(("location", "name", "chips"), row, strict=True)) for row in scenes.to_numpy().tolist()],
            "reason": [{"name": name, "title": title(str(name)), "chips": int(n)} for name, n in reasons.items()],
        }

    def describe(self, chip_id: str) -> dict[str, Any]:
        """Return the details of a chip as JSON values, with reasons in words; raise `KeyError` for an unknown chip."""
        row: dict[str, Any] = {str(name): value for name, value in self.table.loc[chip_id].items()}
        audited = chip_id in self.evidence.index
        evidence = {str(k): v for k, v in self.evidence.loc[chip_id].items()} if audited else {}
        suspicion = float(row["suspicion"])
        return {
            "chip_id": chip_id,
            "location": row["location"],
            "scene": row["scene"],
            "datetime": row["datetime"],
            "label_coverage_share": round(float(row["label_coverage_share"]), 4),
            "suspicion": None if np.isnan(suspicion) else round(suspicion, 4),
            "reasons": [explain(reason, evidence) for reason in row["reasons"].split()],
        }

    def neighbours(self, chip_id: str, number: int) -> list[str]:
        """Return up to `number` other labelled chips of the scene, those with the nearest ids."""
        chips = self._scenes[str(self.table.at[chip_id, "scene"])]
        at = chips.index(chip_id)
        first = max(0, min(at - number // 2, len(chips) - number - 1))
        return [c for c in chips[first : first + number + 1] if c != chip_id]

    def progress(self, verdicts: Mapping[str, Verdict], reviewer: str) -> dict[str, Any]:
        """Return the number of labels by verdict, and the reviewer's speed [labels/min], None if unknown."""
        mine = [verdicts[c] for c in self._ids if c in verdicts]
        counts = {word: sum(row.verdict == word for row in mine) for word in tables.VERDICTS.options["verdict"]}
        times = [row.time for row in mine if row.reviewer == reviewer]
        return {"labels": len(self.table), "judged": len(mine), **counts, "rate_per_min": rate(times)}


def rate(times: list[str]) -> float | None:
    """Compute verdicts per minute, without pauses.

    Args:
        times: ISO 8601 times; other texts, which an edited file may contain, are ignored.

    Returns:
        The rate, or None for fewer than three times.
    """
    known = []
    for text in sorted(times)[-RECENT:]:  # texts of the same format sort like their times
        try:
            known.append(datetime.fromisoformat(text).timestamp())
        except ValueError:
            continue
    if len(known) < 3:
        return None
    work = np.minimum(np.diff(sorted(known)), PAUSE_S).sum()
    return round(float(60 * (len(known) - 1) / max(work, 1.0)), 1)
