"""Which images a path holds, and which reader opens each."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cloudcover.rasters.image import Image

Kind = Literal["chip", "bands", "safe", "raster", "landsat", "hls", "stac"]
"""Readers by name, as `--as` takes them."""


@dataclass(frozen=True)
class Request:
    """What is asked of each image.

    Attributes:
        bands: names of the bands in the order of the result, such as `B02`.
        numbers: bands of a multiband raster by number, from 1, in the same order; None: by their descriptions.
        offset: what was added to the DN of sources that say nothing of an offset [DN].
        nodata: value of pixels without data in the result, and in sources that say nothing of them [DN].
    """

    bands: tuple[str, ...]
    numbers: tuple[int, ...] | None = None
    offset: int = 0
    nodata: int = 0


@dataclass(frozen=True)
class Found:
    """An image that was found and not opened yet; can be pickled.

    Attributes:
        name: stem of the mask's file name.
        kind: its reader.
        place: folder, file or URL.
        request: what is asked of it.
    """

    name: str
    kind: Kind
    place: str
    request: Request

    def open(self) -> AbstractContextManager[Image]:
        """Open it, check that its bands agree, and log what was found and done (not for chips, which are many).

        Raises:
            ChipError: the image cannot be used; names the band or file that is to blame.
        """
        raise NotImplementedError


def find_images(
    paths: Sequence[str | Path],
    bands: Sequence[str],
    *,
    kind: Kind | None = None,
    numbers: Sequence[int] | None = None,
    offset: int = 0,
    nodata: int = 0,
) -> list[Found]:
    """Find the images among `paths`: a path is one itself, or a folder that holds images at any depth.

    Args:
        paths: folders, files and URLs; a URL must be a text, because `Path` drops one of its slashes.
        bands: see `Request`; so are the others.
        kind: the reader to use, or None for what is found.
        numbers: see `Request`.
        offset: see `Request`.
        nodata: see `Request`.

    Raises:
        FileNotFoundError: a path does not exist or holds no image.
    """
    raise NotImplementedError
