"""Where things are."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
OFFLINE = ROOT / "tests" / "offline"


def python_path(*folders: Path | str) -> str:
    """The variable PYTHONPATH with these folders, for a process that must not reach the network either."""
    return os.pathsep.join(map(str, (*folders, OFFLINE)))
