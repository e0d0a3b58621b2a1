"""The training state on disk, written after every epoch, from which an interrupted training resumes."""

from __future__ import annotations

import logging
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import torch

from cloudcover.runtime.files import atomic, sha256, write_text

log = logging.getLogger(__name__)


class ForeignStateError(ValueError):
    """A state belongs to another training; the message names both."""


def save_state(folder: Path, epoch: int, owner: str, state: dict[str, Any]) -> None:
    """Write the state after an epoch, atomically and with its hash, and remove all but the last two states.

    Args:
        folder: Folder of the training.
        epoch: Number of the finished epoch, from 0.
        owner: Identifies the training by everything that determines it; stored in the state.
        state: Tensors, numbers, texts, and lists and dictionaries of them.
    """
    path = folder / f"epoch-{epoch:05d}.ckpt"
    with atomic(path) as part:
        torch.save({"owner": owner, **state}, part)
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


def load_state(path: Path, owner: str) -> dict[str, Any]:
    """Read a state to the CPU; pickled code is never executed.

    Args:
        path: The state.
        owner: Identifies the training that is to be resumed, see `save_state`.

    Raises:
        ForeignStateError: The file is not a training state, or was saved by another training.
    """
    advice = "move it away to start this training from the beginning"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError) as error:
        raise ForeignStateError(f"{path} is not a training state: {advice} ({str(error).splitlines()[0]})") from None
    found = state.get("owner") if isinstance(state, dict) else None
    if found != owner:
        raise ForeignStateError(f"{path} was saved by {found or 'another program'}, but this is {owner}: {advice}")
    return cast("dict[str, Any]", state)
