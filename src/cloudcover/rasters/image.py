"""What every reader gives: an image whose parts are read as digital numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cloudcover.data.grid import Grid


class Image(Protocol):
    """An open image; its pixels are read window by window.

    Attributes:
        name: stem of the mask's file name.
        grid: height, width, CRS and transform.
        says: what was found and done, such as `Sentinel-2 L2A, baseline 05.09, offset -1000 DN`.
        conversion: how stored values become DN (`values.Stored.conversion`), empty if they are taken as they are.
        doubtful: whether nothing states an offset, so that the values must be looked at (`values.suspected_offset`).
        files: files on this machine that it is read from, without links, which no output may overwrite.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def grid(self) -> Grid: ...  # noqa: D102
    @property
    def says(self) -> str: ...  # noqa: D102
    @property
    def conversion(self) -> str: ...  # noqa: D102
    @property
    def doubtful(self) -> bool: ...  # noqa: D102
    @property
    def files(self) -> tuple[Path, ...]: ...  # noqa: D102

    def read(self, rows: slice, columns: slice) -> NDArray[np.uint16]:
        """Read a window; safe to call from several threads.

        Args:
            rows: rows of the window, inside the image, with a step of 1.
            columns: its columns.

        Returns:
            B x H x W uint16 [DN], the asked bands in order; `nodata` where the source of a band says that it has none.

        Raises:
            ChipError: a band cannot be read; names band and file.
        """
        ...
