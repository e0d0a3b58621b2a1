"""The relevant parts of a STAC item (STAC 1.0 and 1.1); all others are ignored."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from cloudcover.data.chips import ChipError
from cloudcover.rasters.layers import COMMON_NAMES, described_band

PICTURES = {"visual", "overview", "thumbnail"}
"""Roles of assets whose values are colours."""
ELSEWHERE = {"pan", "lwir", "lwir11", "lwir12"}
"""Common names of bands that Sentinel-2 does not have."""
RASTERS = ("image/tiff", "image/jp2", "image/vnd.stac.geotiff")


class Part(BaseModel):
    """A part of an item."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Values(Part):
    """Declared properties of values: scale, offset, nodata value and pixel size [m]; None where undeclared."""

    scale: float | None = Field(default=None, validation_alias=AliasChoices("scale", "raster:scale"))
    offset: float | None = Field(default=None, validation_alias=AliasChoices("offset", "raster:offset"))
    nodata: float | None = None
    metres: float | None = Field(
        default=None, validation_alias=AliasChoices("spatial_resolution", "raster:spatial_resolution", "gsd")
    )


class Band(Values):
    """A band of an asset."""

    name: str | None = None
    common_name: str | None = Field(default=None, validation_alias=AliasChoices("eo:common_name", "common_name"))

    def names(self, key: str | None) -> list[str]:
        """Return the names of the band in Sentinel-2's terms.

        A common name takes precedence, because B8 and B11 of Landsat differ from those of Sentinel-2.

        Args:
            key: Key of the asset, if it has no other band.
        """
        if self.common_name in COMMON_NAMES:
            return [COMMON_NAMES[self.common_name]]
        return [] if self.common_name in ELSEWHERE else [described_band(name) for name in (self.name, key) if name]


class Asset(Values):
    """A file of an item."""

    href: str | None = None
    media_type: str | None = Field(default=None, validation_alias="type")
    roles: list[str] | None = None
    eo_bands: list[Band] | None = Field(default=None, validation_alias="eo:bands")
    common_bands: list[Band] | None = Field(default=None, validation_alias="bands")
    raster_bands: list[Values] | None = Field(default=None, validation_alias="raster:bands")

    @property
    def kind(self) -> str:
        """Media type without parameters; that of a TIFF if undeclared."""
        return (self.media_type or RASTERS[0]).split(";")[0].strip().lower()

    @property
    def is_raster(self) -> bool:
        """Whether it contains values rather than colours or text."""
        return self.kind in RASTERS and not PICTURES & set(self.roles or ())

    @property
    def bands(self) -> list[Band]:
        """Its bands in order, at least one."""
        return self.eo_bands or self.common_bands or [Band()]

    def values(self, place: int) -> Values:
        """Return the properties declared for the band at a position, from 0, in any of its lists, or for the asset."""
        lists: list[Sequence[Values]] = [self.raster_bands or (), self.eo_bands or (), self.common_bands or ()]
        holders = [*(own[place] for own in lists if place < len(own)), self]
        stated = {
            name: next((value for holder in holders if (value := getattr(holder, name)) is not None), None)
            for name in Values.model_fields
        }
        return Values.model_construct(**stated)


class Properties(Part):
    """Properties declared for all assets of an item."""

    platform: str | None = None
    landsat_level: str | None = Field(default=None, validation_alias="landsat:correction")
    offset_applied: bool | None = Field(default=None, validation_alias="earthsearch:boa_offset_applied")
    s2_baseline: float | None = Field(default=None, validation_alias="s2:processing_baseline")
    version: float | str | None = Field(default=None, validation_alias="processing:version")

    @property
    def baseline(self) -> float | None:
        """Processing baseline of a Sentinel-2 item."""
        if self.s2_baseline is not None or not (self.platform or "").lower().startswith("sentinel-2"):
            return self.s2_baseline
        try:
            return None if self.version is None else float(self.version)
        except ValueError:
            return None


class Item(Part):
    """A STAC item."""

    type: Literal["Feature"]
    properties: Properties
    assets: dict[str, Asset]

    def holders(self, wanted: str) -> list[tuple[str, int]]:
        """Return the best assets for a band, as their keys and the band's position in them, from 0.

        Single-band assets are preferred, then smaller pixels, then GeoTIFF over JPEG 2000.
        """
        found: list[tuple[tuple[bool, float, bool], tuple[str, int]]] = []
        for key, asset in self.assets.items():
            alone = len(asset.bands) == 1
            for place, band in enumerate(asset.bands if asset.is_raster else ()):
                if wanted in band.names(key if alone else None):
                    metres = asset.values(place).metres
                    order = (not alone, math.inf if metres is None else metres, asset.kind == "image/jp2")
                    found.append((order, (key, place)))
        first = min(found)[0] if found else None
        return [holder for order, holder in found if order == first]


def parse_item(content: bytes, name: str) -> Item:
    """Parse the JSON of an item; raise a `ChipError` that names the invalid part."""
    try:
        return Item.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ChipError(name, f"is not a STAC item: {where}: {first['msg']}") from None
