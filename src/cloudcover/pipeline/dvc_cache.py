"""Reads every object of the DVC cache. DVC itself trusts what is write-protected and does not read it again."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from tqdm import tqdm


def verify(cache: Path, lock: Path) -> tuple[pd.DataFrame, int]:
    """Compares the content of each object with its name, which is the MD5 of what was stored.

    Args:
        cache: folder of the objects, `.dvc/cache/files/md5`.
        lock: `dvc.lock`, which tells what an object is part of.

    Returns:
        object (path in the cache), path (of what it holds, by dvc.lock; several with a comma): a row per corrupted
        object, sorted.
        The number of objects.
    """
    objects = sorted(path for path in cache.glob("??/*") if len(path.stem) == 30)
    bar = tqdm(total=len(objects), desc="verify", unit="object", disable=None)

    def intact(path: Path) -> bool:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "md5").hexdigest()
        bar.update()
        return digest == path.parent.name + path.stem

    with bar, ThreadPoolExecutor() as pool:  # hashlib releases the GIL
        bad = [path for path, good in zip(objects, pool.map(intact, objects), strict=True) if not good]
    held = defaultdict(set)
    for digest, path in _names(cache, yaml.safe_load(lock.read_text())["stages"]) if bad and lock.exists() else ():
        held[digest].add(path)
    rows = [
        (path.relative_to(cache).as_posix(), ", ".join(sorted(held[path.parent.name + path.name])) or "not in dvc.lock")
        for path in bad
    ]
    return pd.DataFrame(rows, columns=["object", "path"], dtype=str), len(objects)


def _names(cache: Path, stages: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Object and path of every output, and of every file in an output that is a folder."""
    for stage in stages.values():
        for out in stage.get("outs", []):
            digest, path = out.get("md5", ""), out["path"]
            yield digest, path
            listing = cache / digest[:2] / digest[2:]
            if digest.endswith(".dir") and listing.exists():
                try:
                    entries = json.loads(listing.read_bytes())
                except ValueError:  # the listing itself is corrupted: it is named, its files are not
                    continue
                yield from ((entry["md5"], f"{path}/{entry['relpath']}") for entry in entries)
