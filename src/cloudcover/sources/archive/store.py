"""The set as published by Radiant MLHub: four tar.gz files with STAC items, local or by URL.

An archive is read twice. The first pass looks at every member and writes nothing: it refuses what could harm, and
learns the chips from the STAC items. The second unpacks what is missing, to names that this project makes itself.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import tarfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import IO

import pandas as pd

from cloudcover.config.sections import DataParams
from cloudcover.data import tables
from cloudcover.runtime.files import hash_files, part_of, read_json, write_text
from cloudcover.sources.archive.stac import Item, locations, parse_item
from cloudcover.sources.archive.tar import members
from cloudcover.sources.remote.content import check_space
from cloudcover.sources.remote.errors import ArchiveError, MissingError
from cloudcover.sources.remote.http import WebFolder
from cloudcover.sources.remote.journal import WORK
from cloudcover.sources.remote.stores import Listed

logger = logging.getLogger(__name__)

ARCHIVES = "archives"
"""Folder below the work folder for archives that are fetched."""
STEM = "ref_cloud_cover_detection_challenge_v1"

MD5 = {
    f"{STEM}_train_source.tar.gz": "32cfe38e313bcedc09dca3f0f9575eea",
    f"{STEM}_train_labels.tar.gz": "695dfb1034924c10fbb17f9293815671",
    f"{STEM}_test_source.tar.gz": "6c67edae18716598d47298f24992db6c",
    f"{STEM}_test_labels.tar.gz": "ec2b42bb43e9a03a01ae096f9e09db9c",
}
"""MD5 of the published archives."""

Images = dict[str, tuple[str, int]]
"""Member and length [bytes] of the images of an archive, by path in the challenge's layout, in their order."""


class Archives:
    """The archives of the splits of `data.splits`; they are fetched and checked only when they must be read."""

    lists = True
    connections = 1

    def __init__(self, params: DataParams, raw: Path) -> None:
        """Raise `ArchiveError` if the list `data.checksums` cannot be read."""
        self._params = params
        self._work = raw / WORK
        self._folder = Path(params.path or self._work / ARCHIVES)
        self._md5 = _checksums(Path(params.checksums)) if params.checksums else MD5
        self._checked: set[Path] = set()
        self._tables: dict[str, pd.DataFrame] = {}
        self._open: dict[str, Iterator[tuple[tarfile.TarInfo, IO[bytes]]]] = {}

    def files(self) -> dict[str, Listed]:
        """List the files of the archives, by reading them or from an earlier run; keys are `ARCHIVE!MEMBER`.

        Raises:
            ArchiveError: An archive has another MD5, is refused by `tar.members` or is not laid out as expected.
            DownloadError: An archive cannot be fetched, or is missing; those of the test labels may be.
        """
        listing: dict[str, Listed] = {}
        chips: dict[tuple[str, str], Item] = {}
        for split, part in product(self._params.splits, ("source", "labels")):
            name = f"{STEM}_{split}_{part}.tar.gz"
            try:
                items, images = self._contents(name)
            except MissingError:
                if (split, part) != ("test", "labels"):  # they were not always available
                    raise
                continue
            listing |= {path: Listed(f"{name}!{key}", size, self._md5[name]) for path, (key, size) in images.items()}
            if part == "source":
                chips |= {(split, chip): item for chip, item in items.items()}
        places = locations(chips)
        for split in self._params.splits:
            items = {chip: item for (of, chip), item in sorted(chips.items()) if of == split}
            rows = [(c, places[split, c], item.datetime, f"{split}_features/{c}") for c, item in items.items()]
            key = f"{STEM}_{split}_source.tar.gz (STAC items)"
            self._tables[key] = pd.DataFrame(rows, columns=list(tables.METADATA.columns))
            listing[f"{split}_metadata.csv"] = Listed(key)
        return listing

    def fetch(self, key: str, part: Path) -> None:
        """Write a table, or unpack a member; members of an archive must be requested in the order of the listing."""
        if key in self._tables:
            tables.METADATA.write(self._tables[key], part)
            return
        name, _, wanted = key.partition("!")
        for member, file in self._open.setdefault(name, members(self._archive(name))):
            if member.name == wanted:
                with part.open("wb") as output:
                    shutil.copyfileobj(file, output)
                return
        raise ArchiveError(f"{name} has no {wanted}: the archive was replaced in the meantime")

    def origin(self, key: str) -> str:
        """Return archive and member."""
        return key or str(self._folder)

    def _contents(self, name: str) -> tuple[dict[str, Item], Images]:
        """Return the result of `inspect` for an archive, from an earlier run if its MD5 is the same."""
        if name not in self._md5:
            raise ArchiveError(f"data.checksums names no MD5 of {name}")
        index = self._work / f"{self._md5[name]}.json"
        if not index.exists():
            write_text(index, json.dumps(inspect(self._archive(name))))  # the images stay in their order
        items, images = read_json(index)
        return {chip: Item(*item) for chip, item in items.items()}, images

    def _archive(self, name: str) -> Path:
        """Return the path of an archive after comparing its MD5; it is fetched if necessary."""
        path, url = self._folder / name, self._params.url
        if path in self._checked:
            return path
        if url and not path.exists():
            _download(WebFolder(url), path)
        if not path.exists():
            raise MissingError(f"{path} is missing: see docs/data.md, or leave the split out of data.splits")
        (found,) = hash_files([path], f"check {name}", algorithm="md5")
        if found != self._md5[name]:
            if url:
                path.unlink()
            raise ArchiveError(
                f"{path} has MD5 {found}, expected {self._md5[name]}: it is damaged or another file; fetch it "
                "again, or list the MD5 of an archive of your own in data.checksums"
            )
        self._checked.add(path)
        return path


def inspect(path: Path) -> tuple[dict[str, Item], Images]:
    """Find the items of an archive by chip, and its images, without writing anything.

    Raises:
        ArchiveError: See `tar.members`; or no images, one without a STAC item, or two for one path.
    """
    stem = path.name.removesuffix(".tar.gz")
    split, part = stem.removeprefix(f"{STEM}_").split("_")
    image = r"\w+" if part == "source" else "labels"
    needed = re.compile(rf"(?:\./)?{stem}/{stem}_({tables.CHIP_ID.pattern})/({image}\.tif|stac\.json)")
    items: dict[str, Item] = {}
    found: list[tuple[str, str, str, int]] = []
    for member, file in members(path):
        if not (match := needed.fullmatch(member.name)):
            continue
        if match[2] == "stac.json":
            items[match[1]] = parse_item(file.read(), f"{path.name}: {member.name}")
        else:
            found.append((match[1], match[2], member.name, member.size))
    if not found:
        raise ArchiveError(f"{path} holds no images: expected {stem}/{stem}_<chip>/<band>.tif")
    images: Images = {}
    for chip, name, key, size in found:
        if chip not in items:
            raise ArchiveError(f"{path}: the chip {chip} has no stac.json")
        place = (
            f"{split}_features/{chip}/{name}"
            if part == "source"
            else f"{split}_labels/{items[chip].source or chip}.tif"
        )
        if place in images:
            raise ArchiveError(f"{path}: two images are {place}: {images[place][0]} and {key}")
        images[place] = (key, size)
    return items, images


def _download(web: WebFolder, path: Path) -> None:
    """Fetch an archive, resuming from what an earlier run has fetched."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part, listed = part_of(path), web.find(path.name)
    have, length = part.stat().st_size if part.exists() else 0, (listed and listed.bytes) or 0
    check_space(path.parent, 2 * length - have)  # the images are about as large: they are compressed already
    logger.info("fetching %s, %.2f of %.2f GB have been fetched before", path.name, have / 1e9, length / 1e9)
    if not have or have != length:
        web.fetch(path.name, part, resume=True)
    part.replace(path)


def _checksums(path: Path) -> dict[str, str]:
    """Read lines in the format of md5sum, `<32 digits>  <name>`; raise `ArchiveError` for others."""
    try:
        found = re.findall(r"^([0-9a-f]{32}) [ *](.*\S)", path.read_text(encoding="utf-8-sig"), re.MULTILINE)
    except (OSError, UnicodeDecodeError) as error:
        raise ArchiveError(f"data.checksums: {path} cannot be read: {error}") from None
    if not found:
        raise ArchiveError(f"data.checksums: {path} is not in the format of md5sum: <32 digits>  <name>")
    return {name: md5 for md5, name in found}
