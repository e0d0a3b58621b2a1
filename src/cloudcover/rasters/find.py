"""Search for images in paths, and choice of their readers."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import unquote, urlsplit

from cloudcover.data.ownership import owned
from cloudcover.data.values import check_offset
from cloudcover.rasters import chips, hls, landsat, multiband, named, safe, stac
from cloudcover.rasters.image import Image
from cloudcover.rasters.layers import SCHEMES, Plan, Request, encoded, file_name, without_query
from cloudcover.rasters.stack import open_stack
from cloudcover.runtime.files import expanded

Kind = Literal["safe", "landsat", "hls", "chip", "bands", "raster", "stac"]
"""Readers by name, for `--as`; the first one that finds an image in a folder is used."""
READERS = {
    "safe": safe, "landsat": landsat, "hls": hls, "chip": chips, "bands": named, "raster": multiband, "stac": stac
}  # fmt: skip
ONLY_ASKED = ("raster", "stac")
"""Readers for files that may also have another purpose: used only if the reader or the file is named explicitly."""
EXPECTED = (
    "expected a folder with {band}.tif or x_{band}.jp2 and so on, a .SAFE folder or its zip, a Landsat or HLS folder; "
    "name rasters with several bands and STAC items directly, or find them with `--as raster` and `--as stac`"
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """An image that was found but not opened; can be pickled.

    Attributes:
        name: Stem of the mask's file name.
        kind: Name of its reader.
        place: Folder, file or address.
        part: Identifier for one of several images in a folder, defined by the reader; empty: the place itself.
        request: Requested bands and conversions.
    """

    name: str
    kind: Kind
    place: str
    part: str
    request: Request

    @contextmanager
    def open(self) -> Iterator[Image]:
        """Open the image, check that its bands match, and log the result, except for chips, which are many.

        Raises:
            ChipError: The image cannot be used; the message names the band or file to blame.
        """
        plan: Callable[[str, str, Request], Plan] = READERS[self.kind].plan
        with open_stack(self.name, plan(self.place, self.part, self.request), self.request) as image:
            if self.kind != "chip":
                log.info("%s: %s", self.name, image.says)
            yield image


def find_images(
    paths: Sequence[str | Path],
    bands: Sequence[str],
    *,
    kind: Kind | None = None,
    numbers: Sequence[int] | None = None,
    offset: int | None = None,
    scale: float | None = None,
    nodata: int = 0,
) -> list[Found]:
    """Find the images in `paths`: each path is an image, or a folder that contains images at any depth.

    Links to folders are followed, hidden folders are not. An image that is found twice is listed once. In folders,
    `raster` and `stac` leave out the files that this program wrote, such as masks of an earlier run.

    Args:
        paths: Folders, files and addresses; an address must be a string, because `Path` drops one of its slashes.
        bands: See `Request`.
        kind: Reader to use, or None for the first that finds something.
        numbers: See `Request`.
        offset: See `Request`.
        scale: See `Request`.
        nodata: See `Request`.

    Raises:
        FileNotFoundError: A path does not exist or contains no image.
        ValueError: A path is empty, an address is not supported, the offset is negative, band numbers are not distinct,
            or they are given but an image is not a raster with several bands.
    """
    check_offset(offset or 0)
    if numbers and len(set(numbers)) < len(numbers):
        raise ValueError(f"the band numbers {', '.join(map(str, numbers))} name a band twice")
    request = Request(tuple(bands), None if numbers is None else tuple(numbers), offset, nodata, scale)
    found: list[Found] = []
    for path in paths:
        if not str(path):
            raise ValueError("an image has the empty path '': is a variable of the shell unset?")
        if isinstance(path, str) and "://" in path:
            below = [_behind(path, kind, request)]
        elif (local := expanded(path)).is_dir():
            below = _below(local, kind, request)
        else:
            below = _in_file(local, kind, request)
        if not below:
            expected = EXPECTED.format(band=bands[0])
            raise FileNotFoundError(f"{path} contains no image{f' for --as {kind}' if kind else ''}: {expected}")
        if other := [image for image in below if numbers and image.kind != "raster"]:
            raise ValueError(
                f"band numbers apply only to rasters with several bands, but {other[0].name} is read as "
                f"{other[0].kind}: "
                "name the raster itself, or omit the numbers"
            )
        found += below
    return list({_identity(image): image for image in reversed(found)}.values())[::-1]


def _identity(image: Found) -> tuple[str, ...]:
    """Return what is equal for an image that is found twice, such as by its own path and in its folder."""
    place = image.place if "://" in image.place else os.path.realpath(Path(image.place, image.part))
    return image.name, image.kind, place


def _behind(url: str, kind: Kind | None, request: Request) -> Found:
    """Return the image at an address: a raster according to its suffix, otherwise a STAC item.

    Raises:
        ValueError: The scheme of the address is not one of `SCHEMES`, or it is an item in a bucket.
    """
    scheme, _, key = url.partition("://")
    if (scheme := scheme.lower()) not in SCHEMES:
        expected = f"only {', '.join(SCHEMES)} are supported, and paths of files"
        raise ValueError(f"{without_query(url)} cannot be read: {expected}")
    bucket = scheme == "s3"
    path = Path(key if bucket else unquote(urlsplit(url).path))
    suffix = path.suffix.lower()
    raster = suffix in multiband.SUFFIXES
    reader = kind or ("raster" if raster else "stac")
    if bucket and reader != "raster":
        raise ValueError(f"{url} cannot be read: only rasters are read from buckets; download the file, and name that")
    name = path.stem if raster or suffix in stac.SUFFIXES else path.name
    return Found(file_name(name), reader, url if bucket else encoded(url), "", request)


def _in_file(path: Path, kind: Kind | None, request: Request) -> list[Found]:
    """Return the image that a file is or belongs to; raise `FileNotFoundError` if it does not exist."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if path.name in safe.LEVELS or landsat.METADATA.fullmatch(path.name):
        return _in_folder(path.parent, [path.name], kind, request)
    suffix = path.suffix.lower()
    kinds: dict[str, Kind] = {".zip": "safe"}
    kinds |= dict.fromkeys(multiband.SUFFIXES, "raster")
    kinds |= dict.fromkeys(stac.SUFFIXES, "stac")
    chosen = kind or kinds.get(suffix)
    if chosen not in (*ONLY_ASKED, "safe"):
        return []
    name = safe.product_name(path.name) if chosen == "safe" else path.stem
    return [Found(file_name(name), chosen, str(path), "", request)]


def _below(top: Path, kind: Kind | None, request: Request) -> list[Found]:
    """Find the images in a folder and all folders below it, by their folders' names."""
    found: dict[Path, list[Found]] = {}
    closed: list[Path] = []
    own: set[Path] = set()
    for folder, folders, names in _folders(top, closed):
        if kind in ONLY_ASKED:
            own |= {folder / path for path in owned(folder)}
            names = [name for name in names if folder / name not in own]
        found[folder] = _in_folder(folder, names, kind, request)
        if any(image.kind == "safe" and not image.part for image in found[folder]):
            folders.clear()  # the content of a product belongs to it
    # As chips, so that they are named with their reason and all others are done.
    found |= {folder: [Found(file_name(folder.resolve().name), "chip", str(folder), "", request)] for folder in closed}
    return [image for folder in sorted(found) for image in found[folder]]


def _in_folder(folder: Path, names: Sequence[str], kind: Kind | None, request: Request) -> list[Found]:
    """Return the images of one folder, by the first reader that finds any."""
    # Resolve the name of the current folder, which becomes that of the mask.
    folder = folder if folder.name not in ("", "..") else folder.resolve()
    kinds: list[Kind] = [kind] if kind else [each for each in get_args(Kind) if each not in ONLY_ASKED]
    for each in kinds:
        if parts := READERS[each].parts(folder, names, request):
            return [Found(file_name(name), each, str(folder), part, request) for part, name in parts.items()]
    return []


def _folders(top: Path, closed: list[Path]) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Yield a folder and all below it with the names of their visible content; loops of links are entered once.

    Folders that cannot be listed are added to `closed`; `os.walk` alone would skip them.
    """
    seen = set()
    for root, folders, names in os.walk(
        top, followlinks=True, onerror=lambda error: closed.append(Path(error.filename))
    ):
        if (place := Path(root).resolve()) in seen:
            folders.clear()
            continue
        seen.add(place)
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield Path(root), folders, [name for name in names if not name.startswith(".")]
