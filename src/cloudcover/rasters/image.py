"""The interface of all readers: an image whose parts are read as digital numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cloudcover.data.grid import Grid


class Image(Protocol):
    """An open image, read window by window.

    Attributes:
        name: Stem of the mask's file name.
        grid: Height, width, CRS and transform.
        says: Description for the log, such as `Sentinel-2 L2A, baseline 05.09, offset -1000 DN`.
        conversion: Conversion of stored values to DN (`values.Stored.conversion`); empty if they are unchanged.
        doubtful: Whether no offset is declared, so that the values must be checked (`offsets.suspected_offset`).
        files: Local files that the image is read from, with links resolved, which no output may overwrite.
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
            rows: Rows of the window, inside the image, with a step of 1.
            columns: Columns of the window.

        Returns:
            B x H x W uint16 [DN], the requested bands in order; `nodata` where the source of a band has no data.

        Raises:
            ChipError: A band cannot be read; the message names band and file.
        """
        ...
