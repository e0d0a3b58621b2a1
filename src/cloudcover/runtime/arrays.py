"""Arrays on disk that are written and read through a memory map."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


def create_array(path: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[Any]]:
    """Create an `.npy` file of zeros and map it for writing.

    The disk space is reserved first. Without that, storing into a map on a full disk ends the process with SIGBUS, and
    `np.save` can cut the end off an array without an error.

    Args:
        path: the file, usually the temporary one of `files.atomic`, which adds the name to an error.
        dtype: data type of the array.
        shape: shape of the array.

    Raises:
        OSError: the disk has no room for the array.
    """
    array: np.memmap[Any, np.dtype[Any]] = np.lib.format.open_memmap(path, "w+", np.dtype(dtype), shape)
    with path.open("rb+") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


class ArrayError(ValueError):
    """An array on disk cannot be used; the message names its file and says what to do."""


def open_array(path: Path, rows: int | None = None) -> NDArray[Any]:
    """Map an `.npy` file for reading.

    Args:
        path: the file.
        rows: length of its first axis; None: any.

    Returns:
        A plain view of the map: slicing a `numpy.memmap` costs ten times as much.

    Raises:
        ArrayError: the file is cut off, is no array, or has another length.
        FileNotFoundError: there is no such file.
    """
    remedy = "remove it and run the stage that makes it again (`snakemake --forcerun`, `dvc repro --force`)"
    try:
        array = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (ValueError, EOFError) as error:
        raise ArrayError(f"{path} is damaged ({error}): {remedy}") from None
    if rows is not None and len(array) != rows:
        raise ArrayError(f"{path} holds {len(array)} rows, expected {rows}: {remedy}")
    return array
