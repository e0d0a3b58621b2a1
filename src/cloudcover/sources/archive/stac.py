"""STAC items of the archives: when and where a chip was taken, and which chip a label belongs to.

Source: SpatioTemporal Asset Catalog 1.0, item specification.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cloudcover.sources.archive.safe_gzip import ArchiveError

K = TypeVar("K", bound=Hashable)

_CELL_DEGREES = 0.25


@dataclass(frozen=True)
class Item:
    """A STAC item.

    Attributes:
        datetime: ISO 8601 text, or empty.
        centre: longitude and latitude [degrees], or None.
        source: of a label item: the chip that its link `rel=source` names; else empty.
    """

    datetime: str
    centre: tuple[float, float] | None
    source: str


def parse_item(text: bytes, name: str) -> Item:
    """Reads an item.

    Args:
        text: JSON.
        name: what to call it in messages.

    Raises:
        ArchiveError: it is not JSON, or not a STAC item.
    """
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
    """Names the location of each chip, which the archives don't: `lon32.5_lat-2.7`, the mean centre of its chips.

    Chips in one cell of a quarter of a degree, or in cells that touch, are one location: so no image is cut in two, and
    folds that keep locations together keep neighbours together. An item without an extent has no location.
    """
    known = [key for key, item in items.items() if item.centre is not None]
    centres = np.array([items[key].centre for key in known], dtype=np.float64).reshape(-1, 2)
    cells, index = np.unique(np.floor(centres / _CELL_DEGREES).astype(np.int64), axis=0, return_inverse=True)
    number = {tuple(cell): i for i, cell in enumerate(cells.tolist())}
    pairs = [
        (i, number[x + dx, y + dy])
        for (x, y), i in number.items()
        for dx, dy in ((1, -1), (1, 0), (1, 1), (0, 1))
        if (x + dx, y + dy) in number
    ]
    rows, columns = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(len(cells), len(cells)))
    group = connected_components(graph, directed=False)[1][index.ravel()] if len(cells) else np.zeros(0, np.int64)
    names = dict.fromkeys(items, "")
    for label in np.unique(group):
        lon, lat = centres[group == label].mean(axis=0)
        for i in np.flatnonzero(group == label):
            names[known[i]] = f"lon{lon:.1f}_lat{lat:.1f}"
    return names
