"""A store packed of a folder of raw chips."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cloudcover.config.sections import DataParams
from cloudcover.data import tables
from cloudcover.data.pack import pack
from cloudcover.data.store import ChipStore


def params(**changes: object) -> DataParams:
    return DataParams.model_validate({"chip_size": 64, "chips_per_shard": 4, "max_quarantined": 0.5} | changes)


def run(raw: Path, workers: int = 1, **changes: object) -> tuple[ChipStore, pd.DataFrame]:
    """Packs `raw` into a store beside it; returns the store and the quarantine."""
    out = raw.parent / "store"
    pack(raw, out, raw.parent / "quarantine.csv", params(**changes), workers)
    return ChipStore(out), tables.QUARANTINE.read(raw.parent / "quarantine.csv")
