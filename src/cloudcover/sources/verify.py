"""Byte-by-byte comparison of the files in `data/raw` with their manifest."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cloudcover.data import tables
from cloudcover.data.layout import differences
from cloudcover.runtime.files import hash_files


def verify(raw: Path) -> pd.DataFrame:
    """Read every file listed in `files.csv` of `raw`, and report differences.

    Returns:
        path, problem: A row per file that is missing, has another length or hash, or is not in the manifest; sorted.

    Raises:
        FileNotFoundError, TableError: There is no manifest, or it is not one.
    """
    manifest = tables.FILES.read(raw / "files.csv")
    problems = differences(raw, manifest)
    rest = manifest[~manifest["path"].isin(list(problems))]
    changed = rest["sha256"] != hash_files([raw / path for path in rest["path"]], "verify")
    problems |= dict.fromkeys(rest["path"][changed], "has another SHA-256: its content has changed")
    return pd.DataFrame(sorted(problems.items()), columns=["path", "problem"], dtype=str)
