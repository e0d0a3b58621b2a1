"""The training state on disk, written after every epoch, from which an interrupted training resumes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from cloudcover.runtime.files import atomic, sha256, write_text

log = logging.getLogger(__name__)


def save_state(folder: Path, epoch: int, state: dict[str, Any]) -> None:
    """Write the state after an epoch, atomically and with its hash, and remove all but the last two states.

    Args:
        folder: Folder of the training.
        epoch: Number of the finished epoch, from 0.
        state: Tensors, numbers, texts, and lists and dictionaries of them.
    """
    path = folder / f"epoch-{epoch:05d}.ckpt"
    with atomic(path) as part:
        torch.save(state, part)
        digest = sha256(part)
    write_text(path.with_suffix(".sha256"), digest)
    for old in sorted(folder.glob("epoch-*.ckpt"))[:-2]:
        old.with_suffix(".sha256").unlink(missing_ok=True)
        old.unlink()


def last_state(folder: Path) -> Path | None:
    """Return the newest state with a valid hash, or None; damaged ones are logged and skipped."""
    for path in sorted(folder.glob("epoch-*.ckpt"), reverse=True):
        seal = path.with_suffix(".sha256")
        if seal.exists() and seal.read_text() == sha256(path):
            return path
        log.warning("%s is damaged; falling back to the previous state", path)
    return None


def load_state(path: Path) -> dict[str, Any]:
    """Read a state to the CPU; pickled code is never executed."""
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state
