"""STAC items of the archives: when and where a chip was taken, and which chip a label belongs to.

Source: SpatioTemporal Asset Catalog 1.0, item specification.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Mapping
from typing import NamedTuple, TypeVar

import numpy as np
from sklearn.cluster import DBSCAN

K = TypeVar("K", bound=Hashable)

_CELL_DEGREES = 0.25


class ArchiveError(ValueError):
    """An archive cannot be used; the message names it, what is wrong and where."""


class Item(NamedTuple):
    """A STAC item.

    Attributes:
        datetime: ISO 8601 text, or empty.
        centre: Longitude and latitude [degrees], or None.
        source: Of a label's item: the chip that its link `rel=source` names; else empty.
    """

    datetime: str
    centre: tuple[float, float] | None
    source: str


def parse_item(text: bytes, name: str) -> Item:
    """Read an item from JSON; `ArchiveError` names it by `name` if it is none."""
    try:
        item = json.loads(text)
        properties, bbox = item["properties"], item.get("bbox")
        links = [link["href"] for link in item.get("links", []) if link.get("rel") == "source"]
        centre = None
        if bbox:
            west, south, *_, east, north = bbox if len(bbox) == 4 else (bbox[0], bbox[1], bbox[3], bbox[4])
            centre = ((west + east) / 2, (south + north) / 2)
        datetime = properties.get("datetime") or ""
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArchiveError(f"{name} is not a STAC item: {error!r}") from None
    return Item(str(datetime), centre, _chip(links[0]) if links else "")


def _chip(link: str) -> str:
    """`…/<collection>_source_<chip>/stac.json` -> the chip."""
    folder = link.rstrip("/").removesuffix("/stac.json").rsplit("/", 1)[-1].removesuffix(".json")
    return re.split(r"_source_", folder)[-1]


def locations(items: Mapping[K, Item]) -> dict[K, str]:
    """Name the location of each chip, which the archives don't: `lon32.5_lat-2.7`, the mean centre of its chips.

    Chips in one cell of a quarter of a degree, or in cells that touch, are one location: so no image is cut in two, and
    folds that keep locations together keep neighbours together. An item without an extent has no location.
    """
    names = dict.fromkeys(items, "")
    known = [key for key, item in items.items() if item.centre is not None]
    if known:
        centres = np.array([items[key].centre for key in known], dtype=np.float64)
        cells, index = np.unique(np.floor(centres / _CELL_DEGREES), axis=0, return_inverse=True)
        group = DBSCAN(eps=1, min_samples=1, metric="chebyshev").fit_predict(cells)[index.ravel()]
        for label in np.unique(group):
            lon, lat = centres[group == label].mean(axis=0)
            names |= {known[i]: f"lon{lon:.1f}_lat{lat:.1f}" for i in np.flatnonzero(group == label)}
    return names
