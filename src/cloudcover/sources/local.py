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

from cloudcover import tables
from cloudcover.chips import check_gcps, image_size
from cloudcover.files import atomic
from cloudcover.params import DataParams
from cloudcover.sources.layout import (
    SPLITS,
    chip_files,
    layout_files,
    read_metadata,
    refuse_sidecars,
    remove_empty_folders,
)
from cloudcover.values import copy_meaning


def fetch(params: DataParams, raw: Path) -> None:
    """Brings the folder `params.path` into `raw`.

    Files of earlier runs that the source no longer has are removed. With `params.tile` images larger than
    `params.chip_size` are cut into chips, whose ids are `<chip>_<row>_<column>` [pixels from the upper left].

    Raises:
        LayoutError: the folder is not in the challenge's layout, or a file beside an image says what its pixels mean.
        ChipError: an image is missing, unreadable, smaller than a tile, or placed by ground control points.
    """
    assert params.path is not None  # DataParams checks it
    source = Path(params.path)
    chips = read_metadata(source)
    wanted = _tile(source, chips, params, raw) if params.tile else _link(source, params, raw)
    for path in list(layout_files(raw)):
        if path not in wanted:
            (raw / path).unlink()
    remove_empty_folders(raw)


def _link(source: Path, params: DataParams, raw: Path) -> set[Path]:
    paths = list(layout_files(source))
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
    target.unlink(missing_ok=True)
    if how == "hardlink":
        os.link(source, target)
    else:
        target.symlink_to(source.resolve())


def windows(height: int, width: int, size: int) -> Iterator[Window]:
    """Tiles of `size` that cover an image; the last of each row and column is moved back to end at the edge."""
    for row in sorted({*range(0, height - size + 1, size), height - size}):
        for column in sorted({*range(0, width - size + 1, size), width - size}):
            yield Window(column, row, size, size)


def _tile(source: Path, chips: pd.DataFrame, params: DataParams, raw: Path) -> set[Path]:
    written: set[Path] = set()
    size = params.chip_size
    rows = []
    for chip in tqdm(chips.to_dict("records"), desc="tile", unit="image", disable=None):
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
                    cut(image, raw / target, window)
                    written.add(target)
            rows.append({**chip, "chip_id": tile_id, "cloudpath": f"{chip['split']}_features/{tile_id}"})
    frame = pd.DataFrame(rows)
    for split in SPLITS:
        part = frame[frame["split"] == split].drop(columns=["split", "scene"])
        if len(part):
            tables.METADATA.write(part, raw / f"{split}_metadata.csv")
            written.add(Path(f"{split}_metadata.csv"))
    return written


def cut(image: Path, target: Path, window: Window) -> None:
    """Writes a window of a GeoTIFF as a GeoTIFF of its own, with its own transform."""
    with rasterio.open(image) as source:
        check_gcps(source, image, image.stem)
        profile = source.profile | {
            "height": window.height,
            "width": window.width,
            "transform": source.window_transform(window),
            "tiled": False,
        }
        for key in ("blockxsize", "blockysize"):
            profile.pop(key, None)
        with (
            atomic(target) as part,
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(part, "w", **profile) as output,
        ):
            output.write(source.read(window=window))
            copy_meaning(source, output, window)
