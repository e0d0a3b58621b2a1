"""Paths of the project and of its programs."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
OFFLINE = ROOT / "tests" / "offline"


def python_path(*folders: Path | str) -> str:
    """Return a PYTHONPATH with these folders and the guard that keeps the process off the network."""
    return os.pathsep.join(map(str, (*folders, OFFLINE)))
