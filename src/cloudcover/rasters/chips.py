"""Chips in the challenge's layout: a folder with one uint16 GeoTIFF per band, `B02.tif` and so on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cloudcover.data.chips import ChipError, band_file, instead
from cloudcover.rasters.layers import Layer, Plan, Request, local


def parts(folder: Path, names: Sequence[str], request: Request) -> dict[str, str]:
    """Return the folder itself if it contains any of the bands, in any format; missing bands are reported on reading.

    A folder with only JPEG 2000 files is left to the reader of single-band rasters.
    """
    bands = [name for name in names if Path(name).stem in request.bands]
    return {} if all(name.lower().endswith(".jp2") for name in bands) else {"": folder.name}


def plan(place: str, part: str, request: Request) -> Plan:
    """Find the file of each band; raises `ChipError` if one is missing or has two files."""
    return Plan(tuple(_layer(Path(place), band) for band in request.bands), "chip")


def _layer(folder: Path, band: str) -> Layer:
    path = band_file(folder, band)
    if not path.exists():
        raise ChipError(band, f"{path} is missing{instead(path)}")
    return local(band, path, dtypes=("uint16",))
