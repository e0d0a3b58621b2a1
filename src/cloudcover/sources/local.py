"""The local source: a folder in the challenge's layout, copied or linked into the project and never changed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import rasterio
from rasterio.windows import Window
from tqdm import tqdm

from cloudcover.config.sections import DataParams
from cloudcover.data import ownership, tables
from cloudcover.data.chips import check_gcps, image_size
from cloudcover.data.geotiff import write_geotiff
from cloudcover.data.layout import chip_files, layout_files, read_metadata, refuse_sidecars, remove_empty_folders
from cloudcover.data.values import copy_meaning
from cloudcover.runtime.files import atomic


def fetch(params: DataParams, raw: Path) -> set[Path]:
    """Brings the folder `params.path` into `raw`.

    Files of earlier runs that the source no longer has are removed. With `params.tile` images larger than
    `params.chip_size` are cut into chips, whose ids are `<chip>_<row>_<column>` [pixels from the upper left].

    Returns:
        The files of the set, relative to `raw`.

    Raises:
        LayoutError: the folder is not in the challenge's layout, or a file beside an image says what its pixels mean.
        ChipError: an image is missing, unreadable, smaller than a tile, or placed by ground control points.
        FolderError: a file in `raw` that is somebody else's would be overwritten.
    """
    assert params.path is not None  # DataParams checks it
    source = Path(params.path)
    chips = read_metadata(source)
    wanted = _tile(source, chips, params, raw) if params.tile else _link(source, params, raw)
    ownership.prune(raw, [path.as_posix() for path in wanted])
    remove_empty_folders(raw)
    return wanted


def _link(source: Path, params: DataParams, raw: Path) -> set[Path]:
    paths = list(layout_files(source))
    ownership.reserve(raw, [path.as_posix() for path in paths])
    for path in tqdm(paths, desc=params.link, unit="file", disable=None):
        refuse_sidecars(source / path)
        place(source / path, raw / path, params.link)
    return set(paths)


def place(source: Path, target: Path, how: str) -> None:
    """Copies, hard-links or symlinks a file atomically; metadata tables are always copied."""
    if how == "copy" or source.suffix == ".csv":
        with atomic(target) as part:
            shutil.copyfile(source, part)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    part.unlink(missing_ok=True)  # of a run that was killed
    if how == "hardlink":
        os.link(source, part)
    else:
        part.symlink_to(source.resolve())
    part.replace(target)
    part.unlink(missing_ok=True)  # renaming a name of a file to another name of it leaves both


def windows(height: int, width: int, size: int) -> Iterator[Window]:
    """Tiles of `size` that cover an image; the last of each row and column is moved back to end at the edge."""
    for row in sorted({*range(0, height - size + 1, size), height - size}):
        for column in sorted({*range(0, width - size + 1, size), width - size}):
            yield Window(column, row, size, size)


def _tile(source: Path, chips: pd.DataFrame, params: DataParams, raw: Path) -> set[Path]:
    size = params.chip_size
    cuts: dict[Path, tuple[Path, Window]] = {}
    rows = []
    for chip in chips.to_dict("records"):
        files = chip_files(source, chip["chip_id"], chip["split"])
        height, width = image_size(files.bands / f"{params.bands[0]}.tif", params.bands[0])
        if height < size or width < size:
            raise ValueError(f"{files.bands} is {height} x {width} pixels, smaller than data.chip_size {size}")
        for window in windows(height, width, size):
            tile_id = f"{chip['chip_id']}_{window.row_off}_{window.col_off}"
            outputs = {
                files.bands / f"{b}.tif": Path(f"{chip['split']}_features", tile_id, f"{b}.tif") for b in params.bands
            }
            if files.label:
                outputs[files.label] = Path(f"{chip['split']}_labels", f"{tile_id}.tif")
            for image, target in outputs.items():
                if image.exists():  # a missing band stays missing: packing lists it
                    cuts[target] = image, window
            rows.append({**chip, "chip_id": tile_id, "cloudpath": f"{chip['split']}_features/{tile_id}"})
    parts = {
        Path(f"{split}_metadata.csv"): part.drop(columns=["split", "scene"])
        for split, part in pd.DataFrame(rows).groupby("split")
    }
    wanted = {*cuts, *parts}
    ownership.reserve(raw, [path.as_posix() for path in wanted])
    for target, (image, window) in tqdm(cuts.items(), desc="tile", unit="file", disable=None):
        cut(image, raw / target, window)
    for path, part in parts.items():
        tables.METADATA.write(part, raw / path)
    return wanted


def cut(image: Path, target: Path, window: Window) -> None:
    """Writes a window of a GeoTIFF as a GeoTIFF of its own, with its own transform."""
    with rasterio.open(image) as source:
        check_gcps(source, image, image.stem)
        profile = source.profile | {
            "transform": source.window_transform(window),
            "tiled": False,
        }
        for key in ("blockxsize", "blockysize"):
            profile.pop(key, None)
        write_geotiff(target, source.read(window=window), profile, lambda output: copy_meaning(source, output, window))
