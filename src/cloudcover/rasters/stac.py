"""STAC items: a JSON file or an address whose assets are rasters, one for each band or one for all.

Read are, of STAC 1.0 and 1.1, `eo:bands` or `bands` (`name`, `common_name`, `eo:common_name`), `raster:bands` (`scale`,
`offset`, `nodata`, `spatial_resolution`), and of items of Sentinel-2 the processing baseline
(`s2:processing_baseline`, `processing:version`) and `earthsearch:boa_offset_applied`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import URLError
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import urlopen

from cloudcover.data.chips import ChipError
from cloudcover.data.values import DN_PER_REFLECTANCE, Stored
from cloudcover.rasters.documents import LARGEST_DOCUMENT, checked_size, number, parse_json, read_document
from cloudcover.rasters.layers import (
    COMMON_NAMES,
    JPEG2000,
    Layer,
    Plan,
    Request,
    described_band,
    driver_of,
    without_query,
)
from cloudcover.rasters.safe import SHIFTED_SINCE

PICTURES = {"visual", "overview", "thumbnail"}
"""Roles of assets whose values are colours."""
ELSEWHERE = {"pan", "lwir", "lwir11", "lwir12"}
"""Common names of bands that Sentinel-2 does not have."""
RASTERS = ("image/tiff", "image/jp2", "image/vnd.stac.geotiff")
APPLIED = "earthsearch:boa_offset_applied"
TIMEOUT = 60
"""Seconds that a server may say nothing."""


class Asset(NamedTuple):
    """A band of an asset: the key of the asset, its content, and the place of the band in it, from 0."""

    key: str
    content: Mapping[str, Any]
    place: int


def parts(folder: Path, names: Sequence[str], request: Request) -> dict[str, str]:
    """All JSON files of a folder."""
    return {name: Path(name).stem for name in sorted(names) if Path(name).suffix.lower() in (".json", ".geojson")}


def plan(place: str, part: str, request: Request) -> Plan:
    """Find the asset of each band and what its values mean.

    Raises:
        ChipError: it is no item, cannot be read, lacks an asset, or names one that must not be opened.
    """
    where = place if "://" in place else str(Path(place, part))
    shown = without_query(where).rpartition("/")[2]
    item = parse_json(_content(where, shown), shown)
    assets = item.get("assets")
    if item.get("type") != "Feature" or not isinstance(assets, dict):
        raise ChipError(shown, "is no STAC item: expected the type Feature and assets")
    properties = item.get("properties") or {}
    if str(properties.get("landsat:correction", "")).startswith("L1"):
        raise ChipError(shown, "is of Landsat's Level 1, whose sun is in the MTL file: name the folder of the product")
    layers, taken = [], []
    for band in request.bands:
        asset = _asset(assets, band, shown)
        taken.append(asset.key)
        uri, path = _resolve(asset, where, shown)
        driver = JPEG2000 if _media_type(asset.content) == "image/jp2" else driver_of(urlsplit(uri).path)
        layers.append(Layer(band, uri, path, _says(asset, properties, request.offset, shown), _index(asset), driver))
    return Plan(tuple(layers), f"STAC item, assets {', '.join(dict.fromkeys(taken))}", _doubtful(properties))


def _content(where: str, shown: str) -> bytes:
    if "://" not in where:
        return read_document(Path(where))
    try:
        with urlopen(where, timeout=TIMEOUT) as answer:
            return checked_size(answer.read(LARGEST_DOCUMENT + 1), shown)
    except (URLError, OSError, ValueError) as error:
        raise ChipError(shown, f"{without_query(where)} cannot be fetched: {error}") from None


def _media_type(content: Mapping[str, Any]) -> str:
    """Media type of an asset without its parameters; a GeoTIFF if it has none."""
    return str(content.get("type") or RASTERS[0]).split(";")[0].strip().lower()


def _bands(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Descriptions of an asset's bands, in order."""
    return [band for band in content.get("eo:bands") or content.get("bands") or [] if isinstance(band, dict)]


def _asset(assets: Mapping[str, Any], band: str, shown: str) -> Asset:
    """The asset of a band; raises `ChipError`.

    Those of one band come before others, then those of smaller pixels, then GeoTIFFs before JPEG 2000.
    """
    wanted = described_band(band)
    found = _holders(assets, wanted)
    if not found and wanted == COMMON_NAMES["nir"]:  # Landsat has one near infrared, by the narrower one's name
        found = _holders(assets, COMMON_NAMES["nir08"])
    if not found:
        raise ChipError(band, f"{shown} has no raster for it among its assets {', '.join(assets)}")
    first = min(order for order, _ in found)
    best = [asset for order, asset in found if order == first]
    if len(best) > 1:
        raise ChipError(band, f"{shown} has several rasters for it: {', '.join(asset.key for asset in best)}")
    return best[0]


def _holders(assets: Mapping[str, Any], wanted: str) -> list[tuple[tuple[bool, float, bool], Asset]]:
    """Assets that hold a band, and what they are ordered by."""
    found = []
    for key, content in assets.items():
        if not isinstance(content, dict) or PICTURES & set(content.get("roles") or ()):
            continue
        kind, bands = _media_type(content), _bands(content) or [{}]
        if kind not in RASTERS:
            continue
        for place, described in enumerate(bands):
            if wanted in _names(described, key if len(bands) == 1 else None):
                asset = Asset(key, content, place)
                found.append(((len(bands) > 1, _metres(asset), kind == "image/jp2"), asset))
    return found


def _names(described: Mapping[str, Any], key: str | None) -> list[str]:
    """What a band is called, in Sentinel-2's names.

    A common name decides where there is one: B8 and B11 of Landsat are other bands than those of Sentinel-2.
    """
    common = str(described.get("eo:common_name") or described.get("common_name"))
    if common in COMMON_NAMES:
        return [COMMON_NAMES[common]]
    return [] if common in ELSEWHERE else [described_band(str(name)) for name in (described.get("name"), key) if name]


def _index(asset: Asset) -> int | None:
    return asset.place + 1 if len(_bands(asset.content)) > 1 else None


def _says(asset: Asset, properties: Mapping[str, Any], given: int, shown: str) -> Stored | None:
    """What the item states of an asset's values; None if it states nothing."""
    scale, offset, nodata = (_stated(asset, key) for key in ("scale", "offset", "nodata"))
    baseline = _baseline(properties)
    if scale is None and offset is None and baseline is None:
        return None
    factor = 0.0001 if scale is None else number(scale, f"scale of {asset.key}", shown)
    if properties.get(APPLIED) is True:
        shift = 0.0  # the item still states the offset of the original
    elif offset is not None:
        shift = number(offset, f"offset of {asset.key}", shown)
    elif baseline is not None:
        shift = -0.1 if number(baseline, "the processing baseline", shown) >= SHIFTED_SINCE else 0.0
    else:
        shift = -given / DN_PER_REFLECTANCE
    return Stored(factor, shift, 0 if nodata is None else number(nodata, f"nodata of {asset.key}", shown))


def _doubtful(properties: Mapping[str, Any]) -> bool:
    """Whether nothing says if the offset of baseline 04.00 is in the values."""
    return _baseline(properties) is None and APPLIED not in properties


def _baseline(properties: Mapping[str, Any]) -> Any:
    """Processing baseline of an item of Sentinel-2, or None."""
    own = properties.get("s2:processing_baseline")
    newer = str(properties.get("platform", "")).lower().startswith("sentinel-2")
    return properties.get("processing:version") if own is None and newer else own


def _stated(asset: Asset, key: str) -> Any:
    """What an item says of a band of an asset, or else of the asset; None if nothing."""
    own: Sequence[Any] = asset.content.get("raster:bands") or _bands(asset.content)
    described = own[asset.place] if asset.place < len(own) else {}
    for place in (described, asset.content):
        for name in (f"raster:{key}", key):
            if place.get(name) is not None:
                return place[name]
    return None


def _metres(asset: Asset) -> float:
    """Size of a pixel [m]; infinite if nothing states it."""
    for key in ("spatial_resolution", "gsd"):
        if isinstance(size := _stated(asset, key), int | float):
            return size
    return math.inf


def _resolve(asset: Asset, where: str, shown: str) -> tuple[str, Path | None]:
    """GDAL's name of an asset's file, and the file itself if it is on this machine; raises `ChipError`."""
    href = str(asset.content.get("href", ""))
    remote = "://" in where
    target = urljoin(where, href) if remote else href
    scheme = urlsplit(target).scheme
    if scheme in ("http", "https"):
        return f"/vsicurl/{target}", None
    if remote or not href or scheme not in ("", "file") or href.startswith("/vsi"):
        raise ChipError(
            shown, f"the asset {asset.key} is {href or 'nowhere'}: expected a file beside the item, or http or https"
        )
    path = Path(where).parent / unquote(urlsplit(target).path if scheme else target)
    return str(path), path
