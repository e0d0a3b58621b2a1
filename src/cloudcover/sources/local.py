"""The local source: a folder in the challenge's layout, copied or linked into the project and never changed."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd
from rasterio.windows import Window
from tqdm import tqdm

from cloudcover.config.sections import DataParams
from cloudcover.data import ownership, tables
from cloudcover.data.chips import ChipError, check_gcps, image_size, images, open_tiff
from cloudcover.data.geotiff import encode_geotiff
from cloudcover.data.layout import (
    NAMES,
    LayoutError,
    layout_files,
    read_metadata,
    refuse_unusable,
    remove_empty_folders,
)
from cloudcover.data.strays import labels_below, refuse_strays, stray_bands, stray_folders, stray_labels
from cloudcover.data.values import copy_meaning
from cloudcover.runtime.files import atomic, part_of
from cloudcover.runtime.text import listed, named

log = logging.getLogger(__name__)


def fetch(params: DataParams, raw: Path) -> set[Path]:
    """Copy or link the folder `params.path` into `raw`.

    Files of earlier runs that are no longer in the source are removed. With `params.tile`, images larger than
    `params.chip_size` are cut into chips with the ids `<chip>_<row>_<column>` [pixels from the upper left].

    Returns:
        The files of the set, relative to `raw`.

    Raises:
        LayoutError: The folder is not in the challenge's layout, too much of it is not recognised, or files cannot be
            read or depend on another file. All other files are copied.
        ChipError: Images cannot be cut into tiles. All other images are.
        FolderError: The program would overwrite a file in `raw` that it did not create.
    """
    assert params.path is not None  # DataParams checks it
    source = Path(params.path)
    chips = read_metadata(source)
    folders = [
        source / f"{split}_features" / chip for chip, split in zip(chips["chip_id"], chips["split"], strict=True)
    ]
    strays = stray_labels(labels_below(source), chips) | stray_bands(source, folders, params.bands)
    refuse_strays(source, strays, len(chips), params.max_quarantined)
    if others := stray_folders(source):
        log.warning("%s: folders that are not part of the layout are ignored: %s", source, listed(others))
    if params.tile:
        wanted = _tile(source, chips, params, raw)
    else:
        paths = list(layout_files(source))
        ownership.reserve(raw, [path.as_posix() for path in paths])
        place_all({source / path: raw / path for path in paths}, params.link)
        wanted = set(paths)
    ownership.prune(raw, [path.as_posix() for path in wanted], NAMES)
    remove_empty_folders(raw)
    return wanted


def place_all(files: Mapping[Path, Path], how: str) -> None:
    """Place files at their targets, and report unusable ones at the end.

    Args:
        files: Target by source.
        how: `copy`, `hardlink` or `symlink`.

    Raises:
        LayoutError: Some files are unusable; the message names them.
    """
    problems = []
    for source, target in tqdm(files.items(), desc=how, unit="file", disable=None):
        try:
            refuse_unusable(source)
        except LayoutError as error:
            problems.append(str(error))
        else:
            place(source, target, how)
    if problems:
        raise LayoutError(named(f"{len(problems)} files cannot be used; all others are in place", problems))


def place(source: Path, target: Path, how: str) -> None:
    """Copy, hard-link or symlink a file atomically; metadata tables are always copied."""
    if how == "copy" or source.suffix == ".csv":
        with atomic(target) as part:
            shutil.copyfile(source, part)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(target)
    part.unlink(missing_ok=True)  # left by a killed run
    if how == "hardlink":
        try:
            os.link(source, part)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            message = "a hard link cannot lead to another file system: set data.link to symlink or copy"
            raise OSError(errno.EXDEV, message, str(source), None, str(target)) from None
    else:
        part.symlink_to(source.resolve())
    part.replace(target)
    part.unlink(missing_ok=True)  # renaming one hard link to another of the same file leaves both


def windows(height: int, width: int, size: int) -> Iterator[Window]:
    """Divide an image into tiles of `size`; the last of each row and column is moved back to end at the edge."""
    for row in sorted({*range(0, height - size + 1, size), height - size}):
        for column in sorted({*range(0, width - size + 1, size), width - size}):
            yield Window(column, row, size, size)


def _tile(source: Path, chips: pd.DataFrame, params: DataParams, raw: Path) -> set[Path]:
    labels = {split: images(source / f"{split}_labels") for split in chips["split"].unique()}
    cuts: dict[Path, tuple[Path, Window]] = {}
    rows, problems = [], []
    for chip in chips.to_dict("records"):
        chip_id, split = chip["chip_id"], chip["split"]
        try:
            files, shape = _images(source / f"{split}_features" / chip_id, labels[split].get(chip_id), params)
        except ChipError as error:
            problems.append(f"{chip_id} {error}")
            continue
        for window in windows(*shape, params.chip_size):
            tile_id = f"{chip_id}_{window.row_off}_{window.col_off}"
            for name, image in files.items():
                place_of = f"labels/{tile_id}" if name == "label" else f"features/{tile_id}/{name}"
                cuts[Path(f"{split}_{place_of}.tif")] = image, window
            rows.append({**chip, "chip_id": tile_id, "cloudpath": f"{split}_features/{tile_id}"})
    parts = {
        Path(f"{split}_metadata.csv"): part.drop(columns=["split", "scene"])
        for split, part in pd.DataFrame(rows, columns=chips.columns).groupby("split")
    }
    wanted = {*cuts, *parts}
    ownership.reserve(raw, [path.as_posix() for path in wanted])
    for target, (image, window) in tqdm(cuts.items(), desc="tile", unit="file", disable=None):
        try:
            cut(image, raw / target, window)
        except ChipError as error:
            problems.append(f"{target.parent.name}/{target.name} {error}")
    if problems:
        raise ChipError("images", named(f"{len(problems)} cannot be used; all others are done", problems))
    for path, part in parts.items():
        tables.METADATA.write(part, raw / path)
    return wanted


def _images(folder: Path, label: Path | None, params: DataParams) -> tuple[dict[str, Path], tuple[int, int]]:
    """List the images of a chip by band, or `label`, and their size [pixels]; missing bands are reported by packing.

    Raises:
        ChipError: There is no band, an image cannot be opened, sizes differ, or they are smaller than a tile.
    """
    found = {name: path for name, path in images(folder).items() if name in params.bands}
    if not found:
        raise ChipError(params.bands[0], f"{folder / params.bands[0]}.tif is missing, and so are all other bands")
    found |= {"label": label} if label else {}
    sizes = {name: image_size(path, name) for name, path in found.items()}
    first, (height, width) = next(iter(sizes.items()))
    for name, size in sizes.items():
        if size != (height, width):
            raise ChipError(name, f"is {size[0]} x {size[1]} pixels, but {first} {height} x {width}")
    if min(height, width) < params.chip_size:
        raise ChipError(first, f"is {height} x {width} pixels, smaller than data.chip_size {params.chip_size}")
    return found, (height, width)


def cut(image: Path, target: Path, window: Window) -> None:
    """Write a window of a GeoTIFF as a separate GeoTIFF, with its own transform.

    Raises:
        ChipError: The image cannot be read, or is georeferenced by ground control points.
        OSError: The tile cannot be written.
    """
    with open_tiff(image, image.stem) as source:
        check_gcps(source, image, image.stem)
        profile = source.profile | {
            "transform": source.window_transform(window),
            "tiled": False,
        }
        for key in ("blockxsize", "blockysize"):
            profile.pop(key, None)
        pixels = source.read(window=window)
        encoded = encode_geotiff(pixels, profile, lambda output: copy_meaning(source, output, window))
    with atomic(target) as part:
        part.write_bytes(encoded)
