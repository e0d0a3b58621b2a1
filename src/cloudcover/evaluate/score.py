"""Agreement of masks with labels, both read from files."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cloudcover.data.chips import IGNORE_INDEX, UNDECLARED, ChipError, doubt_of, images, read_grid, read_mask, stem_of
from cloudcover.data.layout import visible
from cloudcover.data.strays import DOCUMENTS
from cloudcover.evaluate.metrics import by_group
from cloudcover.masks.overlap import COLUMNS, confusion
from cloudcover.runtime.files import expanded
from cloudcover.runtime.text import listed, named

log = logging.getLogger(__name__)


def compare(predictions: str | PathLike[str], labels: str | PathLike[str]) -> dict[str, float]:
    """Compare the masks in one folder with the labels in another; return figures (0-1) and the number of chips.

    Hidden files are ignored. Masks or labels without georeferencing are compared, with a warning.

    Raises:
        FileNotFoundError: There are no labels, or a label has no prediction.
        ChipError: Files cannot be compared: they are not single-band uint8 rasters, contain other values, differ in
            shape, CRS or transform, or two files of a folder have the same name. The message names them.
        ValueError: Both are the same folder, or a folder seems to contain 0/255 masks.
    """
    predictions, labels = expanded(predictions), expanded(labels)
    if predictions.samefile(labels):
        raise ValueError(f"{predictions} and {labels} are the same folder: the score would be that of equal masks, 1.0")
    given, made = images(labels), images(predictions)
    if others := _others(labels, given):
        log.warning("%d files in %s are no GeoTIFFs and left out: %s", len(others), labels, listed(others))
    if not given:
        raise FileNotFoundError(f"{labels} contains no labels: expected files CHIP.tif")
    if missing := [path.name for name, path in given.items() if name not in made]:
        raise FileNotFoundError(
            f"{len(missing)} of {len(given)} labels have no prediction in {predictions}: {listed(missing)}"
        )
    folders = {folder: _Seen() for folder in (predictions, labels)}
    rows, problems, unplaced = [], [], []
    for name, label in given.items():
        try:
            if not _same_place(made[name], label):
                unplaced.append(label.name)
            masks = [_read(path, folders[path.parent]) for path in (made[name], label)]
        except ValueError as error:
            problems.append(str(error))
        else:
            rows.append([name, *confusion((masks[0] == 1)[None], masks[1][None])[0]])
    if problems:
        raise ChipError("masks", named(f"{len(problems)} of {len(given)} cannot be compared", problems))
    for folder, seen in folders.items():
        _refuse_255_masks(folder, seen)
    if unplaced:
        log.warning("%d masks or labels have no georeferencing: %s", len(unplaced), listed(unplaced))
    return _figures(pd.DataFrame(rows, columns=["chip_id", *COLUMNS]))


def _others(folder: Path, known: Collection[str]) -> list[str]:
    """List the files of a folder that are neither hidden nor documents, nor named after a known image."""
    return [
        path.name
        for path in visible(folder)
        if not (path.is_dir() or path.suffix.lower() in DOCUMENTS or path.name.partition(".")[0] in known)
        and stem_of(path.name) not in known
    ]


@dataclass
class _Seen:
    """Statistics of a folder: all values, the number of masks with a 1, those of them with 255, and doubtful masks."""

    values: set[int] = field(default_factory=set)
    cloudy: int = 0
    unknown: int = 0
    doubtful: dict[str, list[str]] = field(default_factory=dict)


def _same_place(prediction: Path, label: Path) -> bool:
    """Compare the georeferencing of two rasters; return False if one has none.

    Raises:
        ChipError: A raster cannot be opened.
        ValueError: The rasters have different places.
    """
    here, there = read_grid(prediction, "mask"), read_grid(label, "label")
    sizes = (here.height, here.width), (there.height, there.width)
    if sizes[0] != sizes[1]:
        raise ValueError(f"{prediction} has the shape {sizes[0]}, but {label} has {sizes[1]}")
    if not (here.placed and there.placed):
        return False
    if problem := here.differences(there):
        raise ValueError(f"{prediction} covers a different place from {label}: {problem}")
    return True


def _read(path: Path, seen: _Seen) -> NDArray[np.uint8]:
    """Read a mask of {0, 1, 255}, H x W, and add its values to `seen`."""
    mask = read_mask(path, "mask")[0]
    seen.values.update(np.flatnonzero(np.bincount(mask.ravel())).tolist())
    if 1 in mask:
        seen.cloudy += 1
        seen.unknown += IGNORE_INDEX in mask
    elif IGNORE_INDEX in mask and (doubt := doubt_of(path)):
        seen.doubtful.setdefault(doubt, []).append(path.name)
    return mask


def _refuse_255_masks(folder: Path, seen: _Seen) -> None:
    if IGNORE_INDEX in seen.values and not seen.cloudy:
        raise ValueError(f"no mask in {folder} contains a 1, but some contain 255: write cloud as 1; 255 means unknown")
    for doubt, names in seen.doubtful.items():
        text = f"{seen.cloudy} masks in {folder} hold a 1, and {len(names)} only 0 and 255, such as {names[0]}"
        if doubt == UNDECLARED:
            raise ValueError(
                f"{text}: write cloud as 1; if 255 means unknown in them, declare it in the files: "
                "`gdal_edit.py -a_nodata 255 FILE`"
            )
        if not seen.unknown:
            log.warning("%s: if these are 0/255 masks, write cloud as 1", text)


def _figures(counts: pd.DataFrame) -> dict[str, float]:
    whole = by_group(counts.assign(all="all"), "all").iloc[0]
    return {
        "jaccard": float(whole["jaccard"]),
        "jaccard_chip_mean": float(by_group(counts, "chip_id")["jaccard"].mean()),
        "precision": float(whole["precision"]),
        "recall": float(whole["recall"]),
        "chips": float(whole["chips"]),
    }
