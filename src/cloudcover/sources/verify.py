"""Compares the files of `data/raw` with its manifest, byte by byte."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from cloudcover.data import tables
from cloudcover.data.layout import layout_files
from cloudcover.runtime.files import sha256


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
    bar = tqdm(total=len(manifest), desc="verify", unit="file", disable=None)

    def problem(path: str, size: int, digest: str) -> str:
        bar.update()
        full = raw / path
        if not full.is_file():
            return "is missing"
        if (found := full.stat().st_size) != size:
            return f"has {found} bytes, expected {size}"
        return "" if sha256(full) == digest else "has another SHA-256: its content changed"

    with bar, ThreadPoolExecutor() as pool:  # hashlib releases the GIL
        problems = list(pool.map(problem, manifest["path"], manifest["bytes"], manifest["sha256"]))
    rows = [(path, text) for path, text in zip(manifest["path"], problems, strict=True) if text]
    rows += [(path, "is not in the manifest") for path in extra]
    return pd.DataFrame(sorted(rows), columns=["path", "problem"], dtype=str)
