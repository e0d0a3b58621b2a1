"""Unrecognised files, which are reported with a remedy and never silently dropped."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path

import pandas as pd

from cloudcover.data.chips import instead, stem_of
from cloudcover.data.ids import core
from cloudcover.data.layout import SPLITS, UNLABELLED, LayoutError, visible
from cloudcover.runtime.text import named

DOCUMENTS = (".txt", ".md", ".csv", ".json", ".xml", ".html", ".pdf", ".yml", ".yaml", ".ini", ".db", ".log")
"""Suffixes of files that are not labels."""

log = logging.getLogger(__name__)


def stray_labels(paths: Iterable[Path], chips: pd.DataFrame) -> dict[str, str]:
    """Find files among the labels that are not the label of a chip, such as `c000_mask.tif` or `c000.png`.

    Documents, and files with the name of a chip that has a label, such as previews, are ignored.

    Args:
        paths: Paths in the challenge's layout, such as `train_labels/c000.tif`; all others are ignored.
        chips: Table of chip_id and split.

    Returns:
        Path -> its problem and the remedy.
    """
    listed = list(paths)
    strays = {}
    for split in (*SPLITS, UNLABELLED):
        known = set(chips.loc[chips["split"] == split, "chip_id"])
        labels = [path for path in listed if path.parent.name == f"{split}_labels"]
        labelled = {stem for path in labels if (stem := stem_of(path.name)) in known}
        others = {core(chip): chip for chip in known - labelled}
        for path in labels:
            if path.name.split(".")[0] in labelled or stem_of(path.name) in known or path.suffix.lower() in DOCUMENTS:
                continue
            means = _meant(path.name, others)
            advice = f"it may be that of {means}, which has none: {_to_label(path, means)}" if means else "remove it"
            strays[path.as_posix()] = f"is not the label of a chip, expected <chip>.tif; {advice}"
    return strays


def stray_folders(root: Path) -> list[str]:
    """List the folders below `root` that are not part of the layout, such as `labels` or `Train_Labels`."""
    known = {f"{split}_{part}" for split in (*SPLITS, UNLABELLED) for part in ("features", "labels")}
    return [path.name for path in visible(root) if path.is_dir() and path.name not in known]


def labels_below(root: Path) -> Iterator[Path]:
    """List the content of the label folders, relative to `root`."""
    folders = [root / f"{split}_labels" for split in (*SPLITS, UNLABELLED)]
    yield from (path.relative_to(root) for folder in folders for path in visible(folder))


def _meant(name: str, chips: dict[str, str]) -> str | None:
    """Find the chip, by `ids.core`, whose id is part of a name, such as c000 in `c000_mask.tif` and `mask-C000.png`."""
    stem = name.rpartition(".")[0] or name
    edges = [-1, *(match.start() for match in re.finditer(r"[_\-. ]", stem)), len(stem)]
    parts = sorted((stem[start + 1 : end] for start, end in combinations(edges, 2)), key=len, reverse=True)
    return next((chips[core(part)] for part in parts if core(part) in chips), None)


def _to_label(path: Path, chip: str) -> str:
    if stem_of(path.name):
        return f"rename it to {chip}.tif"
    if not path.suffix:
        return f"put the label there as {chip}.tif"
    return f"`gdal_translate {path.name} {chip}.tif` converts it"


def stray_bands(root: Path, folders: Iterable[Path], bands: list[str]) -> dict[str, str]:
    """Find bands that exist, but not as a TIFF of their name, such as `B02.jp2`.

    Args:
        root: Folder that results are relative to.
        folders: Folders of chips below it.
        bands: Names of their bands.

    Returns:
        The same as `stray_labels`.
    """
    strays = {}
    for folder in folders:
        found = {stem_of(path.name) for path in visible(folder)}
        for path in (folder / f"{band}.tif" for band in bands if band not in found):
            if other := instead(path):
                strays[path.relative_to(root).as_posix()] = f"is missing{other}"
    return strays


def refuse_strays(root: Path | str, strays: dict[str, str], total: int, tolerated: float) -> None:
    """Refuse a folder with too many unrecognised files; warn about fewer.

    Args:
        root: Folder or address.
        strays: Path below it -> problem.
        total: Number of chips in the folder.
        tolerated: Largest share of them that may be dropped [0-1].

    Raises:
        LayoutError: Too many files are unrecognised.
    """
    if not strays:
        return
    text = named(f"{len(strays)} files of {root} are not recognised", [f"{p} {why}" for p, why in strays.items()])
    if len(strays) > tolerated * total:
        raise LayoutError(f"{text}\n(data.max_quarantined tolerates {tolerated:.1%} of {total} chips)")
    log.warning("%s", text)
