"""Integrity check of the DVC cache, because DVC trusts write-protected objects and does not read them again."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from cloudcover.runtime.files import hash_files


def verify(cache: Path, lock: Path) -> tuple[pd.DataFrame, int]:
    """Compare the content of each object with its name, the MD5 of the stored content.

    Args:
        cache: Folder of the objects, `.dvc/cache/files/md5`.
        lock: The file `dvc.lock`, which relates objects to outputs.

    Returns:
        A table with one row per corrupted object, sorted: object (path in the cache) and path (of the outputs in
        dvc.lock that it belongs to, separated by commas). The number of objects.
    """
    objects = sorted(path for path in cache.glob("??/*") if len(path.stem) == 30)
    digests = hash_files(objects, "verify", algorithm="md5")
    bad = [path for path, digest in zip(objects, digests, strict=True) if digest != path.parent.name + path.stem]
    held = defaultdict(set)
    for digest, path in _names(cache, yaml.safe_load(lock.read_text())["stages"]) if bad and lock.exists() else ():
        held[digest].add(path)
    rows = [
        (path.relative_to(cache).as_posix(), ", ".join(sorted(held[path.parent.name + path.name])) or "not in dvc.lock")
        for path in bad
    ]
    return pd.DataFrame(rows, columns=["object", "path"], dtype=str), len(objects)


def _names(cache: Path, stages: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield object and path of every output, and of every file in an output folder."""
    for stage in stages.values():
        for out in stage.get("outs", []):
            digest, path = out.get("md5", ""), out["path"]
            yield digest, path
            listing = cache / digest[:2] / digest[2:]
            if digest.endswith(".dir") and listing.exists():
                try:
                    entries = json.loads(listing.read_bytes())
                except ValueError:  # the listing itself is corrupted: it is reported, its files are not
                    continue
                yield from ((entry["md5"], f"{path}/{entry['relpath']}") for entry in entries)
