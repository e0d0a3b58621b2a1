"""STAC items: a JSON file or an address whose assets are rasters, one per band or one for all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import urlopen

from cloudcover.data.chips import ChipError
from cloudcover.data.values import DN_PER_REFLECTANCE, Stored
from cloudcover.rasters.documents import LARGEST_DOCUMENT, checked_size, read_document
from cloudcover.rasters.layers import (
    COMMON_NAMES,
    JPEG2000,
    SCHEMES,
    Layer,
    Plan,
    Request,
    described_band,
    driver_of,
    remote,
    without_query,
)
from cloudcover.rasters.safe import SHIFTED_SINCE
from cloudcover.rasters.stac_item import Item, Properties, Values, parse_item

SUFFIXES = (".json", ".geojson")
TIMEOUT = 60
"""Timeout for a server's response [s]."""


def parts(folder: Path, names: Sequence[str], request: Request) -> dict[str, str]:
    """List all JSON files of a folder."""
    return {name: Path(name).stem for name in sorted(names) if Path(name).suffix.lower() in SUFFIXES}


def plan(place: str, part: str, request: Request) -> Plan:
    """Find the asset of each band and the meaning of its values.

    Raises:
        ChipError: It is not an item, cannot be read, lacks an asset, or refers to one that must not be opened.
    """
    where = place if "://" in place else str(Path(place, part))
    shown = without_query(where).rpartition("/")[2]
    item = parse_item(_content(where, shown), shown)
    if (item.properties.landsat_level or "").startswith("L1"):
        raise ChipError(
            shown, "is Landsat Level 1, whose sun elevation is in the MTL file: give the folder of the product"
        )
    layers, taken = [], []
    for band in request.bands:
        key, index = _holder(item, band, shown)
        asset = item.assets[key]
        uri, path = _resolve(key, asset.href or "", where, shown)
        driver = JPEG2000 if asset.kind == "image/jp2" else driver_of(urlsplit(uri).path)
        values = asset.values(index)
        says, floats = _says(values, item.properties, request), _floats(values, item.properties)
        number = index + 1 if len(asset.bands) > 1 else None
        layers.append(Layer(band, uri, path, says, number, driver, nodata=values.nodata, floats=floats))
        taken.append(key)
    doubtful = item.properties.baseline is None and item.properties.offset_applied is None
    return Plan(tuple(layers), f"STAC item, assets {', '.join(dict.fromkeys(taken))}", doubtful)


def _content(where: str, shown: str) -> bytes:
    if "://" not in where:
        return read_document(Path(where))
    try:
        with urlopen(where, timeout=TIMEOUT) as answer:
            return checked_size(answer.read(LARGEST_DOCUMENT + 1), shown)
    except (URLError, HTTPException, OSError, ValueError) as error:
        raise ChipError(shown, f"{without_query(where)} cannot be fetched: {error}") from None


def _holder(item: Item, band: str, shown: str) -> tuple[str, int]:
    """Return the key of a band's asset, and the band's position in it, from 0; raise `ChipError` if there is none."""
    wanted = described_band(band)
    found = item.holders(wanted)
    if (
        not found and wanted == COMMON_NAMES["nir"]
    ):  # Landsat has a single near-infrared band, with the name of the narrower one
        found = item.holders(COMMON_NAMES["nir08"])
    if not found:
        raise ChipError(band, f"{shown} has no raster for it among its assets {', '.join(item.assets)}")
    if len(found) > 1:
        raise ChipError(band, f"{shown} has several rasters for it: {', '.join(key for key, _ in found)}")
    return found[0]


def _says(values: Values, properties: Properties, request: Request) -> Stored | None:
    """Return the declared meaning of an asset's integers; None if there is none."""
    baseline = properties.baseline
    if values.scale is None and values.offset is None and baseline is None:
        return None
    if properties.offset_applied:
        offset = 0.0  # the item still declares the offset of the original
    elif values.offset is not None:
        offset = values.offset
    elif baseline is not None:
        offset = -0.1 if baseline >= SHIFTED_SINCE else 0.0
    else:
        offset = -(request.offset or 0) / DN_PER_REFLECTANCE
    return Stored((request.scale or 0.0001) if values.scale is None else values.scale, offset, None)


def _floats(values: Values, properties: Properties) -> Stored:
    """Return the declared meaning of an asset's floating-point values, which no processing baseline shifts."""
    offset = 0.0 if properties.offset_applied or values.offset is None else values.offset
    return Stored(1.0 if values.scale is None else values.scale, offset, None, reflectance=True)


def _resolve(key: str, href: str, where: str, shown: str) -> tuple[str, Path | None]:
    """Return GDAL's name of an asset's file, and its path if local; raise `ChipError` for unsupported addresses."""
    fetched = "://" in where
    try:
        target = urljoin(where, href) if fetched else href
        scheme, path = urlsplit(target).scheme, urlsplit(target).path
    except ValueError as error:
        raise ChipError(shown, f"the asset {key} is {href!r}: {error}") from None
    if scheme in SCHEMES:
        return remote(target), None
    if fetched or not href or scheme not in ("", "file") or href.startswith("/vsi") or "\0" in href:
        raise ChipError(
            shown, f"the asset {key} is {href or 'nowhere'}: expected a file beside the item, or {', '.join(SCHEMES)}"
        )
    named = path if scheme else target
    file, literal = (Path(where).parent / name for name in (unquote(named), named))
    # Not every writer encodes paths. `Path.exists` would fail for a name that is too long.
    if not os.path.exists(file) and os.path.exists(literal):  # noqa: PTH110
        file = literal
    return str(file), file
