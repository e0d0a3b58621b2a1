"""Further chips without labels, from a folder of your own: candidates for pseudo-labels beside those of the set.

They need no metadata. Where and when they were taken is unknown, so each is a location and a scene of its own.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cloudcover.config.sections import DataParams
from cloudcover.data import ownership, tables
from cloudcover.data.layout import UNLABELLED, LayoutError, hashed, read_metadata, refuse_sidecars
from cloudcover.runtime.text import listed
from cloudcover.sources.local import place


def add(params: DataParams, raw: Path) -> None:
    """Brings the chips of `params.unlabelled` into `raw` as the split `unlabelled`, and into its manifest.

    Args:
        params: the folder with `<chip>/<band>.tif`, the bands, and how files are linked.
        raw: holds the set, its manifest, and no further chips yet.

    Raises:
        LayoutError: the folder holds no chip, or one that has the id of a chip of the set (also if only by case);
            or a file beside an image says what its pixels mean.
        FolderError: a file in `raw` that is somebody else's would be overwritten.
    """
    source = Path(str(params.unlabelled))
    chips = sorted({path.parent.name for band in params.bands for path in source.glob(f"*/{band}.tif")})
    if not chips:
        raise LayoutError(f"data.unlabelled: {source} holds no chip, expected folders with {params.bands[0]}.tif …")
    taken = set(read_metadata(raw)["chip_id"].str.lower())
    if twice := [chip for chip in chips if chip.lower() in taken]:
        raise LayoutError(f"data.unlabelled: {len(twice)} chips have ids of chips of the set: {listed(twice)}")
    images = [
        file for chip in chips for file in sorted(source.glob(f"{chip}/*.tif")) if file.stem in params.bands
    ]  # a missing band stays missing: packing lists it
    table = Path(f"{UNLABELLED}_metadata.csv")
    targets = [Path(f"{UNLABELLED}_features", file.parent.name, file.name) for file in images]
    ownership.reserve(raw, [path.as_posix() for path in (table, *targets)])
    rows = {"chip_id": chips, "location": chips, "datetime": "", "cloudpath": ""}
    tables.METADATA.write(pd.DataFrame(rows), raw / table)
    for file, target in zip(images, targets, strict=True):
        refuse_sidecars(file)
        place(file, raw / target, params.link)
    manifest = tables.FILES.read(raw / "files.csv")
    tables.FILES.write(pd.concat([manifest, hashed(raw, [table, *targets], UNLABELLED)]), raw / "files.csv")
