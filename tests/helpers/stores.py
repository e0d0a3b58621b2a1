"""A folder of raw chips, and the store packed from it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cloudcover.config.sections import DataParams, SyntheticParams
from cloudcover.data import tables
from cloudcover.data.pack import pack
from cloudcover.data.store import ChipStore
from cloudcover.sources.fetch import fetch


def params(**changes: object) -> DataParams:
    return DataParams.model_validate({"chip_size": 64, "chips_per_shard": 4, "max_quarantined": 0.5} | changes)


def run(raw: Path, workers: int = 1, **changes: object) -> tuple[ChipStore, pd.DataFrame]:
    """Packs `raw` into a store beside it; returns the store and the quarantine."""
    out = raw.parent / "store"
    pack(raw, out, raw.parent / "quarantine.csv", params(**changes), workers)
    return ChipStore(out), tables.QUARANTINE.read(raw.parent / "quarantine.csv")


def bring(source: Path, raw: Path, **changes: object) -> Path:
    """Downloads a local set into `raw`."""
    data = DataParams.model_validate({"source": "local", "path": str(source), "chip_size": 64} | changes)
    fetch(data, SyntheticParams(), 0, raw, raw.parent / "truth")
    return raw


def reasons(quarantine: pd.DataFrame) -> dict[str, str]:
    return quarantine.set_index("chip_id")["reason"].to_dict()
