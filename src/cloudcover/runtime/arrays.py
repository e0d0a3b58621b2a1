"""Arrays on disk that are filled through a memory map."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike


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
