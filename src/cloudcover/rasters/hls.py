"""Harmonized Landsat Sentinel-2 (HLS) granules, version 2: L30 and S30 at 30 m, one int16 GeoTIFF per band.

Masek et al., HLS Product User Guide, version 2.0: surface reflectance x 10,000 with the fill value -9999.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from cloudcover.data.chips import ChipError
from cloudcover.data.values import Stored
from cloudcover.rasters.layers import Layer, Plan, Request, existing, local, plain_band

NAME = re.compile(r"(HLS\.[LS]30\.T[0-9A-Z]{5}\.\d{7}T\d{6}\.v\d\.\d)\.B\w\w\.tif", re.IGNORECASE)
SAYS = Stored(scale=0.0001, offset=0.0, nodata=-9999)
L30 = {band: band for band in ("B01", "B02", "B03", "B04")} | {
    "B08": "B05", "B8A": "B05", "B10": "B09", "B11": "B06", "B12": "B07"
}  # fmt: skip
"""Landsat bands of a granule by the corresponding Sentinel-2 bands; S30 uses the Sentinel-2 names."""


def parts(folder: Path, names: Sequence[str], request: Request) -> dict[str, str]:
    """List the granules of a folder by their names."""
    return {match[1]: match[1] for name in sorted(names) if (match := NAME.fullmatch(name))}


def plan(place: str, part: str, request: Request) -> Plan:
    """Find the file of each band; raise `ChipError` for a band that the product does not have."""
    product = part.split(".")[1].upper()
    layers = tuple(_layer(Path(place), part, product, band) for band in request.bands)
    return Plan(layers, f"HLS {product}", doubtful=False)


def _layer(folder: Path, part: str, product: str, band: str) -> Layer:
    key = plain_band(band)
    own = L30.get(key) if product == "L30" else key
    if own is None:
        raise ChipError(band, f"HLS {product} has no such band: {', '.join(L30)} are there")
    return local(band, existing(folder, f"{part}.{own}.tif"), says=SAYS)
