"""Compares the files of `data/raw` with its manifest, byte by byte."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cloudcover.data import tables
from cloudcover.data.layout import layout_files
from cloudcover.runtime.files import hash_files


def verify(raw: Path) -> pd.DataFrame:
    """Reads every file and names what differs.

    Args:
        raw: folder with `files.csv`.

    Returns:
        path, problem: a row per file that is missing, has another length or hash, or is not in the manifest; sorted.

    Raises:
        FileNotFoundError: there is no manifest.
        TableError: it is not one.
    """
    manifest = tables.FILES.read(raw / "files.csv")
    extra = {path.as_posix() for path in layout_files(raw)} - set(manifest["path"])
    rows = [(path, "is not in the manifest") for path in extra]
    expected = {}
    for path, size, digest in manifest[["path", "bytes", "sha256"]].itertuples(index=False):
        full = raw / path
        if not full.is_file():
            rows.append((path, "is missing"))
        elif (found := full.stat().st_size) != size:
            rows.append((path, f"has {found} bytes, expected {size}"))
        else:
            expected[path] = digest
    digests = hash_files([raw / path for path in expected], "verify")
    rows += [
        (path, "has another SHA-256: its content changed")
        for path, digest in zip(expected, digests, strict=True)
        if digest != expected[path]
    ]
    return pd.DataFrame(sorted(rows), columns=["path", "problem"], dtype=str)
