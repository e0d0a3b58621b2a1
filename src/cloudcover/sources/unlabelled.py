"""Additional unlabelled chips from a user's folder, as candidates for pseudo-labels.

They need no metadata. Their place and time are unknown, so each is treated as a separate location and scene.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cloudcover.config.sections import DataParams
from cloudcover.data import ownership, tables
from cloudcover.data.chips import stem_of
from cloudcover.data.layout import UNLABELLED, LayoutError, hashed, read_metadata, visible
from cloudcover.data.strays import refuse_strays, stray_bands
from cloudcover.runtime.text import listed
from cloudcover.sources.local import place_all


def add(params: DataParams, raw: Path) -> None:
    """Add the chips of `params.unlabelled` to `raw` as the split `unlabelled`, and to its manifest.

    Args:
        params: Folder with `<chip>/<band>.tif`, the bands, and how files are linked.
        raw: Folder with the set and its manifest, and no additional chips yet.

    Raises:
        LayoutError: The folder contains no chip, or one with the id of a chip of the set (ignoring case); too much of
            it is not recognised; or files cannot be used, see `local.place_all`.
        FolderError: The program would overwrite a file in `raw` that it did not create.
    """
    source = Path(str(params.unlabelled))
    folders = [path for path in visible(source) if path.is_dir() and any(visible(path))]
    found = {folder: [file for file in visible(folder) if stem_of(file.name) in params.bands] for folder in folders}
    strays = {folder.name: "contains none of the bands" for folder, files in found.items() if not files}
    strays |= stray_bands(source, folders, params.bands)
    refuse_strays(source, strays, len(folders), params.max_quarantined)
    chips = [folder.name for folder, files in found.items() if files]
    if not chips:
        raise LayoutError(f"data.unlabelled: {source} contains no chips, expected folders with {params.bands[0]}.tif …")
    taken = set(read_metadata(raw)["chip_id"].str.lower())
    if twice := [chip for chip in chips if chip.lower() in taken]:
        raise LayoutError(f"data.unlabelled: {len(twice)} chips have the id of a chip of the set: {listed(twice)}")
    table = Path(f"{UNLABELLED}_metadata.csv")
    # A missing band stays missing: packing lists it.
    targets = {file: Path(f"{UNLABELLED}_features", file.parent.name, file.name) for f in found.values() for file in f}
    ownership.reserve(raw, [path.as_posix() for path in (table, *targets.values())])
    rows = {"chip_id": chips, "location": chips, "datetime": "", "cloudpath": ""}
    tables.METADATA.write(pd.DataFrame(rows), raw / table)
    place_all({file: raw / target for file, target in targets.items()}, params.link)
    manifest = tables.FILES.read(raw / "files.csv")
    tables.FILES.write(pd.concat([manifest, hashed(raw, [table, *targets.values()], UNLABELLED)]), raw / "files.csv")
