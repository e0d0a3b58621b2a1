"""Files of the store: a shard is two arrays and a seal, a table written last that contains their hashes."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from cloudcover.data import tables
from cloudcover.runtime.arrays import create_array
from cloudcover.runtime.files import atomic, sha256

KINDS = ("chips", "labels")
Arrays = dict[str, NDArray[Any]]
"""The arrays of a shard by kind, with the chips along the first axis."""
_FILE = re.compile(r"(?:chips|labels|shard)-(\d{5})\.(?:npy|parquet)")

log = logging.getLogger(__name__)


def array_path(store: Path, kind: str, shard: int) -> Path:
    """Return the path of an array of a shard; `kind` is `chips` or `labels`."""
    return store / f"{kind}-{shard:05d}.npy"


def _seal_path(store: Path, shard: int) -> Path:
    return store / f"shard-{shard:05d}.parquet"


def write(store: Path, shard: int, rows: pd.DataFrame, arrays: Arrays, key: str | None) -> None:
    """Write a shard.

    Args:
        store: Folder of the shards.
        shard: Number of the shard.
        rows: Table with one row per chip, which `kept` returns.
        arrays: Chips N x B x H x W uint16 [DN], labels N x H x W uint8 of {0, 1, 255}.
        key: Description of the shard's sources; None: the shard must not be kept.
    """
    seal = _seal_path(store, shard)
    seal.unlink(missing_ok=True)
    for kind in KINDS:
        with atomic(array_path(store, kind, shard)) as part:
            array = create_array(part, arrays[kind].dtype, arrays[kind].shape)
            array[:] = arrays[kind]
            array.flush()
    rows.attrs = {"key": key, "sha256": {kind: sha256(array_path(store, kind, shard)) for kind in KINDS}}
    with atomic(seal) as part:
        rows.to_parquet(part, index=False, write_page_checksum=True)


def kept(store: Path, shard: int, key: str) -> pd.DataFrame | None:
    """Return the rows of a shard on disk, or None if its sources differ or it is damaged, which is logged."""
    if not _seal_path(store, shard).exists():
        return None
    rows, problems = _check(store, shard)
    for path, problem in problems.items():
        log.warning("%s %s: packed again", store / path, problem)
    return rows if rows is not None and not problems and rows.attrs["key"] == key else None


def verify(store: Path) -> pd.DataFrame:
    """Read every shard of a store and report damage.

    Returns:
        Table of path and problem, one row per file, sorted.

    Raises:
        FileNotFoundError: There is no index.
    """
    problems: dict[str, str] = {}
    try:
        index = tables.INDEX.read(store / "index.parquet")
    except tables.TableError as error:
        return pd.DataFrame({"path": ["index.parquet"], "problem": [f"is damaged ({error})"]}, dtype=str)
    for shard, chips in index.groupby("shard"):
        rows, found = _check(store, int(str(shard)))
        problems |= found
        if rows is not None and set(rows["chip_id"]) != set(chips["chip_id"]):
            problems["index.parquet"] = f"lists different chips from {_seal_path(store, int(str(shard))).name}"
    return pd.DataFrame(sorted(problems.items()), columns=["path", "problem"], dtype=str)


def _check(store: Path, shard: int) -> tuple[pd.DataFrame | None, dict[str, str]]:
    """Check a shard: return its rows, or None if its seal is unreadable, and the problems of its files."""
    seal = _seal_path(store, shard)
    try:
        rows = tables.read_parquet(seal)
    except FileNotFoundError:
        return None, {seal.name: "is missing"}
    except (OSError, ValueError) as error:
        return None, {seal.name: f"is damaged ({error})"}
    problems = {}
    for kind in KINDS:
        path = array_path(store, kind, shard)
        if not path.exists():
            problems[path.name] = "is missing"
        elif sha256(path) != rows.attrs.get("sha256", {}).get(kind):
            problems[path.name] = "is damaged: its SHA-256 is not that of its seal"
    return rows, problems


def remove_others(store: Path, shards: set[int]) -> None:
    """Remove the files of all other shards."""
    for path in store.iterdir():
        if (match := _FILE.fullmatch(path.name)) and int(match[1]) not in shards:
            path.unlink()
