"""A single raster with several bands, local or remote: GeoTIFF, COG, JPEG 2000 or VRT."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import rasterio

from cloudcover.data.chips import ChipError
from cloudcover.rasters.layers import VRT, Layer, Plan, Request, described_as, driver_of, local, remote, without_query
from cloudcover.rasters.stack import errors_of, open_layer, options
from cloudcover.rasters.vrt import check_vrt

SUFFIXES = (".tif", ".tiff", ".jp2", ".vrt")


def parts(folder: Path, names: Sequence[str], request: Request) -> dict[str, str]:
    """List all rasters of a folder by their suffix."""
    return {name: Path(name).stem for name in sorted(names) if Path(name).suffix.lower() in SUFFIXES}


def plan(place: str, part: str, request: Request) -> Plan:
    """Select the bands by the given numbers or by their descriptions.

    Raises:
        ChipError: The raster cannot be read, a band does not exist, or its descriptions do not identify the bands.
    """
    file = _file(place, part)
    with rasterio.Env(**options([file])), errors_of(file), open_layer(file) as source:
        numbers = request.numbers or _described(source.descriptions, file, request)
        if len(numbers) != len(request.bands) or not all(1 <= number <= source.count for number in numbers):
            raise ChipError(
                file.band,
                f"{file.shown} has {source.count} bands and cannot give bands {', '.join(map(str, numbers))} "
                f"for {', '.join(request.bands)}: give one number from 1 to {source.count} for each",
            )
    layers = tuple(
        Layer(band, file.uri, file.path, index=index, driver=file.driver)
        for band, index in zip(request.bands, numbers, strict=True)
    )
    return Plan(layers, f"bands {', '.join(map(str, numbers))} of a raster")


def _file(place: str, part: str) -> Layer:
    """Return the file as a layer for opening it."""
    if "://" in place:
        name = without_query(place).rpartition("/")[2]
        return Layer(name, remote(place), None, driver=driver_of(name))
    path = Path(place, part)
    if path.suffix.lower() == ".vrt":
        check_vrt(path)
        return Layer(path.name, str(path), path, driver=VRT)
    return local(path.name, path)


def _described(descriptions: Sequence[str | None], file: Layer, request: Request) -> tuple[int, ...]:
    """Return the numbers of the requested bands, from 1."""
    found = {band: described_as(band, [text or "" for text in descriptions]) for band in request.bands}
    if len(descriptions) == 1 < len(found):
        raise ChipError(file.band, f"{file.shown} has a single band: name the folder with the files of all bands")
    if missing := [band for band, places in found.items() if len(places) != 1]:
        own = ", ".join(text or "(nothing)" for text in descriptions)
        raise ChipError(
            missing[0],
            f"{file.shown} calls its {len(descriptions)} bands {own}: select them, for example with `--bands 1,2,3,4`",
        )
    return tuple(place + 1 for (place,) in found.values())
