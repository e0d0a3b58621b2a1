"""Folders of single-band rasters with the band at the end of their names: `x_B02.tif`, `x_B02_10m.jp2`, `B2.TIF`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from cloudcover.data.chips import ChipError
from cloudcover.rasters.layers import Layer, Plan, Request, local, plain_band

NAME = re.compile(
    r"(?:(?P<part>.+?)[_.\-])?(?P<band>[A-Za-z0-9]+?)(?:_(?P<metres>\d\d)m)?\.(?:tiff?|jp2)", re.IGNORECASE
)
"""The part before the band is the name of the image; a pixel size may follow, as in Level-2A products."""


def parts(folder: Path, names: Sequence[str], request: Request) -> dict[str, str]:
    """List the images of a folder by the part of the names before the band; without one, use the folder's own name."""
    return {part: part or folder.name for part, *_ in sorted(_named(names, request))}


def plan(place: str, part: str, request: Request) -> Plan:
    """Select the file with the smallest pixels for each band; raise `ChipError` if there is none, or more than one."""
    folder = Path(place)
    files = [name for name in sorted(path.name for path in folder.iterdir()) if not name.startswith(".")]
    found = [named for named in _named(files, request) if named[0] == part]
    return Plan(tuple(_layer(folder, part, band, found) for band in request.bands), "single-band rasters")


def _named(names: Sequence[str], request: Request) -> Iterator[tuple[str, str, int, str]]:
    """Yield image, band, pixel size from the name [m], and name of the files that contain one of the bands."""
    wanted = {plain_band(band) for band in request.bands}
    for name in names:
        match = NAME.fullmatch(name)
        if match and (band := plain_band(match["band"])) in wanted:
            yield match["part"] or "", band, int(match["metres"] or 0), name


def _layer(folder: Path, part: str, band: str, found: Sequence[tuple[str, str, int, str]]) -> Layer:
    files = sorted((metres, name) for _, of, metres, name in found if of == plain_band(band))
    if not files:
        name = f"{part}_{band}" if part else band
        raise ChipError(band, f"{folder / name}.tif or .jp2 is missing")
    names = [name for metres, name in files if metres == files[0][0]]
    if len(names) > 1:
        raise ChipError(band, f"{folder / names[0]} and {names[1]} are the same band: remove one of them")
    return local(band, folder / names[0])
