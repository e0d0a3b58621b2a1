"""STAC items of the archives: when and where a chip was taken, and which chip a label belongs to.

Source: SpatioTemporal Asset Catalog 1.0, item specification.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from pathlib import PurePosixPath
from typing import NamedTuple, TypeVar

import pandas as pd
from sklearn.cluster import DBSCAN

from cloudcover.sources.remote.errors import ArchiveError

K = TypeVar("K", bound=Hashable)

_NEAR_DEGREES = 0.25


class Item(NamedTuple):
    """A STAC item.

    Attributes:
        datetime: ISO 8601 text, or empty.
        centre: Longitude and latitude [degrees], or None.
        source: For the item of a label, the chip named by its link `rel=source`; otherwise empty.
    """

    datetime: str
    centre: tuple[float, float] | None
    source: str


def parse_item(text: bytes, name: str) -> Item:
    """Read an item from JSON; raise `ArchiveError`, which names it by `name`, if it is not one."""
    try:
        item = json.loads(text)
        datetime = item["properties"].get("datetime") or ""
        centre = None
        if bbox := item.get("bbox"):
            half = len(bbox) // 2  # 3 where heights are stated
            centre = ((bbox[0] + bbox[half]) / 2, (bbox[1] + bbox[half + 1]) / 2)
        links = [PurePosixPath(link["href"]) for link in item.get("links", []) if link.get("rel") == "source"]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ArchiveError(f"{name} is not a STAC item: {error!r}") from None
    # …/<collection>_source_<chip>/stac.json
    return Item(str(datetime), centre, links[0].parent.name.rpartition("_source_")[2] if links else "")


def locations(items: Mapping[K, Item]) -> dict[K, str]:
    """Name the location of each chip, because the archives do not: `lon32.5_lat-2.7`, the mean centre of its chips.

    A chip is at the location of every chip less than a quarter of a degree away: so no image is cut in two, and folds
    that keep locations together keep neighbours together. An item without an extent has no location.
    """
    names = dict.fromkeys(items, "")
    centres = {key: item.centre for key, item in items.items() if item.centre}
    if centres:
        frame = pd.DataFrame(list(centres.values()), columns=["lon", "lat"])
        groups = DBSCAN(eps=_NEAR_DEGREES, min_samples=1, metric="chebyshev").fit_predict(frame)
        means = frame.groupby(groups).transform("mean")
        names |= dict(zip(centres, [f"lon{lon:.1f}_lat{lat:.1f}" for lon, lat in means.to_numpy()], strict=True))
    return names
