"""Paths of the project and of its programs."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
OFFLINE = ROOT / "tests" / "offline"
NOBODY = "http://127.0.0.1:9"
"""Proxy of programs that are not Python; nobody listens at the port for discarded data."""


def python_path(*folders: Path | str) -> str:
    """Return a PYTHONPATH with these folders and the guard that keeps the process off the network."""
    return os.pathsep.join(map(str, (*folders, OFFLINE)))
