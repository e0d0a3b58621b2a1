"""The challenge's folder layout, and the table that lists its files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from cloudcover.data import tables
from cloudcover.data.chips import stem_of
from cloudcover.data.scenes import scene_of
from cloudcover.runtime.files import hash_files

SPLITS = ("train", "test")

UNLABELLED = "unlabelled"
"""A third split, for additional unlabelled chips that are not in the set (`data.unlabelled`)."""

EXTRA = ("chip_id_crosswalk.csv",)
"""Additional tables of the mirrors, with the names of the chips in the challenge."""

NAMES = frozenset(
    [*EXTRA, *(f"{split}_{part}" for split in (*SPLITS, UNLABELLED) for part in ("features", "labels", "metadata.csv"))]
)
"""Files and folders of a set."""
WORLDS = tuple(
    ending for suffix in ("tfw", "tifw", "tiffw", "wld", "tab") for ending in (f".{suffix}", f".{suffix.upper()}")
)
"""Suffixes of files that may hold the place of a TIFF beside them."""


class LayoutError(ValueError):
    """A folder that does not have the challenge's layout; the message says what was expected and what was found."""


def read_metadata(root: Path) -> pd.DataFrame:
    """Read the chips of all splits by `tables.METADATA`, with columns `split` and `scene`.

    Raises:
        LayoutError: There is no train_metadata.csv, it has no rows, or a datetime is not ISO 8601.
        TableError: Ids are not plain names, or duplicated (also if only in case, or between splits).
    """
    frames = []
    for split in (*SPLITS, UNLABELLED):
        path = root / f"{split}_metadata.csv"
        if path.exists():
            frames.append(tables.METADATA.read(path).assign(split=split))
        elif split == "train":
            raise LayoutError(f"{path} is missing: {_remedy(root)}")
    chips = tables.METADATA.check(pd.concat(frames), root / "*_metadata.csv")
    if chips.empty:
        raise LayoutError(f"{root}/train_metadata.csv lists no chips")
    try:
        return chips.assign(scene=scene_of(chips["location"], chips["datetime"]))
    except ValueError as error:
        raise LayoutError(f"{root}/*_metadata.csv: {error}") from None


def _remedy(root: Path) -> str:
    """Explain how to get `train_metadata.csv`; if the table of files exists, the set was downloaded before."""
    if (root / "files.csv").exists():
        return (
            "raw files are not versioned; `snakemake --cores 1 --forcerun download -- data/raw/files.csv` fetches them"
        )
    return f"expected train_metadata.csv with {list(tables.METADATA.columns)}"


def orphans(root: Path, chips: pd.DataFrame) -> dict[str, list[str]]:
    """Compare metadata and folders in both directions; links to folders count, hidden folders do not.

    Returns:
        Sorted ids as `rows without chips` (only in the metadata) and `chips without rows` (only on disk).
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


def visible(folder: Path) -> Iterator[Path]:
    """List the content of a folder, sorted, without hidden names; an empty list if there is no such folder."""
    if folder.is_dir():
        yield from sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def remove_empty_folders(root: Path) -> None:
    """Remove the folders of deleted chips, because an empty one would look like a chip without bands."""
    for folder in root.glob("*_features/*/"):
        if not any(folder.iterdir()):
            folder.rmdir()


def layout_files(root: Path) -> Iterator[Path]:
    """List all files of the layout below `root`, relative to it; links are followed, hidden files are unfinished."""
    yield from (Path(name) for name in EXTRA if (root / name).exists())
    for split in (*SPLITS, UNLABELLED):
        metadata = root / f"{split}_metadata.csv"
        if metadata.exists():
            yield metadata.relative_to(root)
        for folder in (*visible(root / f"{split}_features"), root / f"{split}_labels"):
            yield from (path.relative_to(root) for path in visible(folder) if stem_of(path.name))


def differences(root: Path, manifest: pd.DataFrame) -> dict[str, str]:
    """Compare the files below `root` with their manifest in both directions, by names and lengths.

    Args:
        root: Folder in the challenge's layout.
        manifest: `tables.FILES`.

    Returns:
        Path -> problem: missing, another length, or not in the manifest.
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
    """Refuse an unreadable file, or an image whose meaning depends on another file, which would not be copied.

    A `.aux.xml` that contains only statistics is ignored, and so is a world file of an image that has its own place.

    Raises:
        LayoutError: The file is refused.
    """
    if not file.is_file() or not os.access(file, os.R_OK):
        link = f": it is a link to {file.readlink()}" if file.is_symlink() else ""
        raise LayoutError(f"{file} is not a file that can be read{link}")
    mask, more = (file.with_name(f"{file.name}.{end}") for end in ("msk", "aux.xml"))
    said = re.findall(r"<(NoDataValue|Scale|Offset|GCPList|GeoTransform)\b|\b(NODATA_VALUES)\b", _text(more))
    beside, what = more, " and ".join(dict.fromkeys(tag or key for tag, key in said))
    if mask.exists():
        beside, what = mask, "a mask"
    elif not what and (place := _place_beside(file, more)):
        beside, what = place, "the place"
    if what:
        raise LayoutError(
            f"{beside} holds {what} of {file.name}, but only the TIFF is used: write all into one file with "
            f"`gdal_translate --config GDAL_TIFF_INTERNAL_MASK YES --config GDAL_PAM_ENABLED NO {file.name} OUT`"
        )


def _place_beside(file: Path, more: Path) -> Path | None:
    """Return the world file, or `more`, from which GDAL takes the place of an image; None if the image has its own."""
    worlds = (file.with_suffix(suffix) for suffix in WORLDS)
    found = [path for path in (*worlds, more) if path.exists()]
    if not found or not stem_of(file.name):
        return None
    import rasterio
    from rasterio.errors import RasterioError

    try:
        with (
            rasterio.open(file, driver="GTiff") as image,
            rasterio.open(file, driver="GTiff", GEOREF_SOURCES="INTERNAL") as alone,
        ):
            return found[0] if (image.crs, image.transform) != (alone.crs, alone.transform) else None
    except RasterioError:  # packing names it
        return None


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def write_file_table(
    root: Path, origin: str, progress: bool | None = None, paths: Iterable[Path] | None = None
) -> pd.DataFrame:
    """Hash the files below `root` and write `root/files.csv` by `tables.FILES`.

    Args:
        root: Folder in the challenge's layout.
        origin: Where the files came from.
        progress: Whether to show a progress bar; None: only on a terminal.
        paths: Files of the layout, relative to `root`; None: all existing files.
    """
    chosen = None if paths is None else set(paths)
    files = [path for path in layout_files(root) if chosen is None or path in chosen]
    frame = hashed(root, files, origin, progress)
    tables.FILES.write(frame, root / "files.csv")
    return frame


def hashed(root: Path, paths: list[Path], origin: str, progress: bool | None = None) -> pd.DataFrame:
    """Return rows of `tables.FILES` for some files below `root`; arguments as for `write_file_table`."""
    digests = hash_files([root / path for path in paths], "hash", progress)
    rows = [
        (path.as_posix(), (root / path).stat().st_size, digest) for path, digest in zip(paths, digests, strict=True)
    ]
    return pd.DataFrame(rows, columns=["path", "bytes", "sha256"]).assign(origin=origin)
