"""The challenge's folder layout, and the table that lists its files."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path

import pandas as pd

from cloudcover.data import tables
from cloudcover.data.chips import instead, stem_of
from cloudcover.data.ids import core
from cloudcover.data.scenes import scene_of
from cloudcover.runtime.files import hash_files
from cloudcover.runtime.text import named

SPLITS = ("train", "test")

UNLABELLED = "unlabelled"
"""A third split, of further chips without labels that the set does not have (`data.unlabelled`)."""

EXTRA = ("chip_id_crosswalk.csv",)
"""Tables that the mirrors have beside the metadata: the names that the chips had in the challenge."""


DOCUMENTS = (".txt", ".md", ".csv", ".json", ".xml", ".html", ".pdf", ".yml", ".yaml", ".ini", ".db", ".log")
"""Suffixes of files that hold no label."""


log = logging.getLogger(__name__)


class LayoutError(ValueError):
    """A folder is not in the challenge's layout; the message says what was expected and what was found."""


def read_metadata(root: Path) -> pd.DataFrame:
    """Chips of all splits by `tables.METADATA`, with columns `split` and `scene`.

    Raises:
        LayoutError: there is no train_metadata.csv, or it has no rows.
        TableError: ids are duplicated (also if only by case, or between splits) or not plain names.
    """
    frames = []
    for split in (*SPLITS, UNLABELLED):
        path = root / f"{split}_metadata.csv"
        if path.exists():
            frames.append(tables.METADATA.read(path).assign(split=split))
        elif split == "train":
            raise LayoutError(f"{path} is missing: expected train_metadata.csv with {list(tables.METADATA.columns)}")
    chips = tables.METADATA.check(pd.concat(frames), root / "*_metadata.csv")
    if chips.empty:
        raise LayoutError(f"{root}/train_metadata.csv lists no chips")
    return chips.assign(scene=scene_of(chips["location"], chips["datetime"]))


def orphans(root: Path, chips: pd.DataFrame) -> dict[str, list[str]]:
    """Two-way difference between the metadata and the folders; links to folders count, hidden folders do not.

    Returns:
        `rows without chips` (in the metadata only) and `chips without rows` (on disk only), sorted ids.
    """
    missing: list[str] = []
    extra: list[str] = []
    for split in (*SPLITS, UNLABELLED):
        known = set(chips.loc[chips["split"] == split, "chip_id"])
        folder = root / f"{split}_features"
        found = {path.name for path in visible(folder) if path.is_dir()}
        missing += known - found
        extra += found - known
    return {"rows without chips": sorted(missing), "chips without rows": sorted(extra)}


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
    """Names of the folders below `root` that are not part of the layout, such as `labels` or `Train_Labels`."""
    known = {f"{split}_{part}" for split in (*SPLITS, UNLABELLED) for part in ("features", "labels")}
    return [path.name for path in visible(root) if path.is_dir() and path.name not in known]


def labels_below(root: Path) -> Iterator[Path]:
    """What lies in the folders of labels, relative to `root`."""
    folders = [root / f"{split}_labels" for split in (*SPLITS, UNLABELLED)]
    yield from (path.relative_to(root) for folder in folders for path in visible(folder))


def _meant(name: str, chips: dict[str, str]) -> str | None:
    """The chip, by `ids.core`, whose id is a part of a name, such as c000 of `c000_mask.tif` and `mask-C000.png`."""
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


def visible(folder: Path) -> Iterator[Path]:
    """What a folder holds, sorted, hidden names left out; nothing if there is no such folder."""
    if folder.is_dir():
        yield from sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def remove_empty_folders(root: Path) -> None:
    """Removes the folders of chips whose images are gone; one that stays would look like a chip without bands."""
    for folder in root.glob("*_features/*/"):
        if not any(folder.iterdir()):
            folder.rmdir()


def layout_files(root: Path) -> Iterator[Path]:
    """All files of the layout below `root`, relative to it; links are followed, hidden files are unfinished."""
    yield from (Path(name) for name in EXTRA if (root / name).exists())
    for split in (*SPLITS, UNLABELLED):
        metadata = root / f"{split}_metadata.csv"
        if metadata.exists():
            yield metadata.relative_to(root)
        for folder in (*visible(root / f"{split}_features"), root / f"{split}_labels"):
            yield from (path.relative_to(root) for path in visible(folder) if stem_of(path.name))


def differences(root: Path, manifest: pd.DataFrame) -> dict[str, str]:
    """Two-way difference between the files below `root` and their manifest, by names and lengths.

    Args:
        root: folder in the challenge's layout.
        manifest: `tables.FILES`.

    Returns:
        Path -> what is wrong: missing, another length, or not in the manifest.
    """
    found = {path.as_posix(): (root / path).stat().st_size for path in layout_files(root) if (root / path).exists()}
    wrong = dict.fromkeys(found.keys() - set(manifest["path"]), "is not in the manifest")
    for path, size in manifest[["path", "bytes"]].itertuples(index=False):
        if path not in found:
            wrong[path] = "is missing"
        elif found[path] != size:
            wrong[path] = f"has {found[path]} bytes, expected {size}"
    return wrong


def refuse_unusable(file: Path) -> None:
    """Refuse a file that cannot be read, or an image whose meaning is in a file beside it, which would stay behind.

    A `.aux.xml` that holds nothing but statistics is ignored.

    Raises:
        LayoutError: see above.
    """
    if not file.is_file() or not os.access(file, os.R_OK):
        link = f": it is a link to {file.readlink()}" if file.is_symlink() else ""
        raise LayoutError(f"{file} is not a file that can be read{link}")
    mask, more = (file.with_name(f"{file.name}.{end}") for end in ("msk", "aux.xml"))
    said = re.findall(r"<(NoDataValue|Scale|Offset|GCPList|GeoTransform)\b", _text(more))
    if mask.exists() or said:
        beside, what = (mask, "a mask") if mask.exists() else (more, " and ".join(dict.fromkeys(said)))
        raise LayoutError(
            f"{beside} holds {what} of {file.name}, but only the TIFF is used: write all into one file with "
            f"`gdal_translate --config GDAL_TIFF_INTERNAL_MASK YES --config GDAL_PAM_ENABLED NO {file.name} OUT`"
        )


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def write_file_table(
    root: Path, origin: str, progress: bool | None = None, paths: Iterable[Path] | None = None
) -> pd.DataFrame:
    """Hashes the files below `root` and writes `root/files.csv` by `tables.FILES`.

    Args:
        root: folder in the challenge's layout.
        origin: where the files came from.
        progress: show a bar; None: when on a terminal.
        paths: files of the layout, relative to `root`; None: all that are there.
    """
    chosen = None if paths is None else set(paths)
    files = [path for path in layout_files(root) if chosen is None or path in chosen]
    frame = hashed(root, files, origin, progress)
    tables.FILES.write(frame, root / "files.csv")
    return frame


def hashed(root: Path, paths: list[Path], origin: str, progress: bool | None = None) -> pd.DataFrame:
    """Rows of `tables.FILES` of some files below `root`; arguments as for `write_file_table`."""
    digests = hash_files([root / path for path in paths], "hash", progress)
    rows = [
        (path.as_posix(), (root / path).stat().st_size, digest) for path, digest in zip(paths, digests, strict=True)
    ]
    return pd.DataFrame(rows, columns=["path", "bytes", "sha256"]).assign(origin=origin)
