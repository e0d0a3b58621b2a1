"""Further chips without labels, from a folder of your own: candidates for pseudo-labels beside those of the set.

They need no metadata. Where and when they were taken is unknown, so each is a location and a scene of its own.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cloudcover.config.sections import DataParams
from cloudcover.data import ownership, tables
from cloudcover.data.chips import stem_of
from cloudcover.data.layout import UNLABELLED, LayoutError, hashed, read_metadata, refuse_strays, stray_bands, visible
from cloudcover.runtime.text import listed
from cloudcover.sources.local import bring


def add(params: DataParams, raw: Path) -> None:
    """Brings the chips of `params.unlabelled` into `raw` as the split `unlabelled`, and into its manifest.

    Args:
        params: the folder with `<chip>/<band>.tif`, the bands, and how files are linked.
        raw: holds the set, its manifest, and no further chips yet.

    Raises:
        LayoutError: the folder holds no chip, or one that has the id of a chip of the set (also if only by case); too
            much of it is not recognised; or files cannot be used, see `local.bring`.
        FolderError: a file in `raw` that is somebody else's would be overwritten.
    """
    source = Path(str(params.unlabelled))
    folders = [path for path in visible(source) if path.is_dir() and any(visible(path))]
    found = {folder: [file for file in visible(folder) if stem_of(file.name) in params.bands] for folder in folders}
    strays = {folder.name: "holds none of the bands" for folder, files in found.items() if not files}
    strays |= stray_bands(source, folders, params.bands)
    refuse_strays(source, strays, len(folders), params.max_quarantined)
    chips = [folder.name for folder, files in found.items() if files]
    if not chips:
        raise LayoutError(f"data.unlabelled: {source} holds no chip, expected folders with {params.bands[0]}.tif …")
    taken = set(read_metadata(raw)["chip_id"].str.lower())
    if twice := [chip for chip in chips if chip.lower() in taken]:
        raise LayoutError(f"data.unlabelled: {len(twice)} chips have ids of chips of the set: {listed(twice)}")
    table = Path(f"{UNLABELLED}_metadata.csv")
    # A missing band stays missing: packing lists it.
    targets = {file: Path(f"{UNLABELLED}_features", file.parent.name, file.name) for f in found.values() for file in f}
    ownership.reserve(raw, [path.as_posix() for path in (table, *targets.values())])
    rows = {"chip_id": chips, "location": chips, "datetime": "", "cloudpath": ""}
    tables.METADATA.write(pd.DataFrame(rows), raw / table)
    bring({file: raw / target for file, target in targets.items()}, params.link)
    manifest = tables.FILES.read(raw / "files.csv")
    tables.FILES.write(pd.concat([manifest, hashed(raw, [table, *targets.values()], UNLABELLED)]), raw / "files.csv")
