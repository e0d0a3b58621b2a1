"""Arrays on disk, written and read through memory maps."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


def create_array(path: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[Any]]:
    """Create an `.npy` file of zeros and map it for writing.

    The disk space is reserved first. Otherwise, writing to a map on a full disk kills the process with SIGBUS, and
    `np.save` can silently truncate an array.

    Args:
        path: File to create, usually the temporary file of `files.atomic`, which adds the name to an error.
        dtype: Data type of the array.
        shape: Shape of the array.

    Raises:
        OSError: There is not enough disk space for the array.
    """
    array: np.memmap[Any, np.dtype[Any]] = np.lib.format.open_memmap(path, "w+", np.dtype(dtype), shape)
    with path.open("rb+") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


class ArrayError(ValueError):
    """An unusable array on disk; the message names its file and the remedy."""


def open_array(path: Path, rows: int | None = None) -> NDArray[Any]:
    """Map an `.npy` file for reading.

    Args:
        path: File to map.
        rows: Expected length of the first axis; None: any.

    Returns:
        A plain view of the map, because slicing a `numpy.memmap` takes ten times as long.

    Raises:
        ArrayError: The file is truncated, not an array, or has another length.
        FileNotFoundError: The file does not exist.
    """
    remedy = "remove it and run the stage that makes it again (`snakemake --forcerun`, `dvc repro --force`)"
    try:
        array = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (ValueError, EOFError) as error:
        raise ArrayError(f"{path} is damaged ({error}): {remedy}") from None
    if rows is not None and len(array) != rows:
        raise ArrayError(f"{path} holds {len(array)} rows, expected {rows}: {remedy}")
    return array
