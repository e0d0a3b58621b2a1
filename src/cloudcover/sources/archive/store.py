"""The set as Radiant MLHub handed it out: four tar.gz files with STAC items, local or by URL.

An archive is read twice. The first pass looks at every member and writes nothing: it refuses what could harm, and
learns the chips from the STAC items. The second unpacks what is missing, to names that this project makes itself.
"""

from __future__ import annotations

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
from cloudcover.runtime.files import hash_files, part_of, read_json, write_json
from cloudcover.sources.archive.stac import ArchiveError, Item, locations, parse_item
from cloudcover.sources.archive.tar import members
from cloudcover.sources.remote.content import check_space
from cloudcover.sources.remote.errors import MissingError
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


Contents = tuple[dict[str, Item], dict[str, int]]
"""What the first pass learns of an archive: items by chip, and the lengths of its images by member [bytes]."""


class Archives:
    """The archives of the splits of `data.splits`; they are fetched and checked only when they must be read."""

    lists = True
    connections = 1

    def __init__(self, params: DataParams, raw: Path) -> None:
        """Raise `ArchiveError` if the list `data.checksums` cannot be read."""
        self._params = params
        self._work = raw / WORK
        self._folder = Path(params.path) if params.path else self._work / ARCHIVES
        self._md5 = _checksums(Path(params.checksums)) if params.checksums else MD5
        self._checked: set[str] = set()
        self._tables: dict[str, pd.DataFrame] = {}
        self._reading: tuple[str, Iterator[tuple[tarfile.TarInfo, IO[bytes]]]] = ("", iter(()))

    def files(self) -> dict[str, Listed]:
        """Read the archives, or what is known of them from an earlier run; keys are `ARCHIVE!MEMBER`.

        Raises:
            ArchiveError: An archive has another MD5, is refused by `tar.members` or is not laid out as expected.
            DownloadError: An archive cannot be fetched, or is missing; those of the test labels may be.
        """
        listing: dict[str, Listed] = {}
        items: dict[tuple[str, str], Item] = {}
        for split, part in product(self._params.splits, ("source", "labels")):
            name = f"{STEM}_{split}_{part}.tar.gz"
            try:
                found, images = self._contents(name)
            except MissingError:
                if (split, part) != ("test", "labels"):  # they were not always at hand
                    raise
                continue
            for member, size in images.items():
                chip, file = _match(name, member)
                path = f"{split}_features/{chip}/{file}"
                if part == "labels":
                    path = f"{split}_labels/{found[chip].source or chip}.tif"
                if path in listing:
                    raise ArchiveError(f"{name}: two images are {path}: {listing[path].key} and {member}")
                listing[path] = Listed(f"{name}!{member}", size, self._md5[name])
            if part == "source":
                items |= {(split, chip): item for chip, item in found.items()}
        places = locations(items)
        for split in self._params.splits:
            rows = [
                (chip, places[of, chip], item.datetime, f"{split}_features/{chip}")
                for (of, chip), item in sorted(items.items())
                if of == split
            ]
            key = f"{STEM}_{split}_source.tar.gz (STAC items)"
            self._tables[key] = pd.DataFrame(rows, columns=["chip_id", "location", "datetime", "cloudpath"])
            listing[f"{split}_metadata.csv"] = Listed(key)
        return listing

    def fetch(self, key: str, part: Path) -> str:
        """Unpack one member, or write a table; the members of an archive are cheapest in its order."""
        if key in self._tables:
            tables.METADATA.write(self._tables[key], part)
            return ""
        name, _, wanted = key.partition("!")
        for _ in range(2):
            for member, file in self._reading[1] if self._reading[0] == name else ():
                if member.name == wanted:
                    with part.open("wb") as output:
                        shutil.copyfileobj(file, output)
                    return self._md5[name]
            self._reading = name, members(self._path(name))  # from its beginning
        raise ArchiveError(f"{name} has no {wanted}: it was replaced meanwhile")

    def origin(self, key: str) -> str:
        """Archive and member."""
        return key or str(self._folder)

    def _contents(self, name: str) -> Contents:
        """What an archive holds, from an earlier run where its MD5 is the same."""
        if name not in self._md5:
            raise ArchiveError(f"data.checksums names no MD5 of {name}")
        index = self._work / f"{name}.members.json"
        if index.exists() and (known := read_json(index))["md5"] == self._md5[name]:
            return {chip: Item(*item) for chip, item in known["items"].items()}, known["images"]
        items, images = inspect(self._path(name))
        write_json(index, {"md5": self._md5[name], "items": items, "images": images})
        return items, images

    def _path(self, name: str) -> Path:
        """Where an archive is, after its MD5 was compared; it is fetched if need be."""
        path = self._folder / name
        if name not in self._checked:
            if self._params.url and not path.exists():
                self._download(WebFolder(self._params.url), path)
            if not path.exists():
                raise MissingError(f"{path} is missing: see docs/data.md, or leave the split out of data.splits")
            (found,) = hash_files([path], f"check {name}", algorithm="md5")
            if found != self._md5[name]:
                if self._params.url:
                    path.unlink()
                raise ArchiveError(
                    f"{path} has MD5 {found}, expected {self._md5[name]}: it is damaged or another file; fetch it "
                    "again, or list the MD5 of an archive of your own in data.checksums"
                )
            self._checked.add(name)
        return path

    def _download(self, web: WebFolder, path: Path) -> None:
        """Fetch an archive, after what an earlier run has of it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part, listed = part_of(path), web.find(path.name)
        have, length = part.stat().st_size if part.exists() else 0, (listed and listed.bytes) or 0
        check_space(path.parent, 2 * length - have)  # the images are about as large: they are compressed already
        logger.info("fetching %s, %.2f of %.2f GB are there", path.name, have / 1e9, length / 1e9)
        web.fetch(path.name, part, resume=True)
        part.replace(path)


def inspect(path: Path) -> Contents:
    """Read an archive without writing a byte.

    Raises:
        ArchiveError: See `tar.members`; or an image without a STAC item, or no images at all.
    """
    items: dict[str, Item] = {}
    images: dict[str, int] = {}
    for member, file in members(path):
        chip, name = _match(path.name, member.name)
        if name == "stac.json":
            items[chip] = parse_item(file.read(), f"{path.name}: {member.name}")
        elif name:
            images[member.name] = member.size
    if not images:
        stem = path.name.removesuffix(".tar.gz")
        raise ArchiveError(f"{path} holds no images: expected {stem}/{stem}_<chip>/<band>.tif")
    if orphans := sorted({_match(path.name, member)[0] for member in images} - set(items)):
        raise ArchiveError(f"{path}: {len(orphans)} chips have no stac.json, such as {orphans[0]}")
    return items, images


def _match(archive: str, member: str) -> tuple[str, str]:
    """Chip and file of a member `<stem>/<stem>_<chip>/<file>`, or two empty texts for what is not needed."""
    stem = re.escape(archive.removesuffix(".tar.gz"))
    image = "labels" if archive.endswith("_labels.tar.gz") else r"\w+"
    found = re.fullmatch(rf"(?:\./)?{stem}/{stem}_({tables.CHIP_ID.pattern})/({image}\.tif|stac\.json)", member)
    return (found[1], found[2]) if found else ("", "")


def _checksums(path: Path) -> dict[str, str]:
    """Read lines of md5sum: `<32 digits>  <name>`; raises `ArchiveError`."""
    try:
        lines = [line.split(maxsplit=1) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise ArchiveError(f"data.checksums: {path} cannot be read: {error.strerror}") from None
    if any(len(line) != 2 or not re.fullmatch("[0-9a-f]{32}", line[0]) for line in lines):
        raise ArchiveError(f"data.checksums: {path} is not as md5sum writes it: <32 digits>  <name>")
    return {name.lstrip("*").strip(): md5 for md5, name in lines}
