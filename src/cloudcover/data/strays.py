"""Files that are not recognised: they are named with what to do, and never dropped in silence."""

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
"""Suffixes of files that hold no label."""

log = logging.getLogger(__name__)


def stray_labels(paths: Iterable[Path], chips: pd.DataFrame) -> dict[str, str]:
    """Find what lies among the labels but is no chip's label, such as `c000_mask.tif` or `c000.png`.

    Documents, and whatever lies beside a chip's label under its name, such as a preview, are passed over.

    Args:
        paths: in the challenge's layout, such as `train_labels/c000.tif`; all others are ignored.
        chips: chip_id, split.

    Returns:
        Path -> what is wrong with it, and what to do.
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
            strays[path.as_posix()] = f"is no label of a chip, expected <chip>.tif; {advice}"
    return strays


def stray_folders(root: Path) -> list[str]:
    """Name of the folders below `root` that are not part of the layout, such as `labels` or `Train_Labels`."""
    known = {f"{split}_{part}" for split in (*SPLITS, UNLABELLED) for part in ("features", "labels")}
    return [path.name for path in visible(root) if path.is_dir() and path.name not in known]


def labels_below(root: Path) -> Iterator[Path]:
    """What lies in the folders of labels, relative to `root`."""
    folders = [root / f"{split}_labels" for split in (*SPLITS, UNLABELLED)]
    yield from (path.relative_to(root) for folder in folders for path in visible(folder))


def _meant(name: str, chips: dict[str, str]) -> str | None:
    """Return the chip, by `ids.core`, whose id is a part of a name, such as c000 of `c000_mask.tif` and `mask-C000.png`."""
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
    """Find bands that are there, but not as a TIFF of their name, such as `B02.jp2`.

    Args:
        root: the folder that results are relative to.
        folders: of chips, below it.
        bands: their bands.

    Returns:
        As `stray_labels`.
    """
    strays = {}
    for folder in folders:
        found = {stem_of(path.name) for path in visible(folder)}
        for path in (folder / f"{band}.tif" for band in bands if band not in found):
            if other := instead(path):
                strays[path.relative_to(root).as_posix()] = f"is missing{other}"
    return strays


def refuse_strays(root: Path | str, strays: dict[str, str], total: int, tolerated: float) -> None:
    """Refuse a folder in which too much is not recognised; warn of less.

    Args:
        root: the folder, or an address.
        strays: path below it -> what is wrong with it.
        total: chips of the folder.
        tolerated: largest share of them that may be dropped [0-1].

    Raises:
        LayoutError: more than that.
    """
    if not strays:
        return
    text = named(f"{len(strays)} files of {root} are not recognised", [f"{p} {why}" for p, why in strays.items()])
    if len(strays) > tolerated * total:
        raise LayoutError(f"{text}\n(data.max_quarantined tolerates {tolerated:.1%} of {total} chips)")
    log.warning("%s", text)
