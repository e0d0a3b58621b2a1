"""The archive source: the set as Radiant MLHub handed it out, four tar.gz files with STAC items, local or by URL.

An archive is read twice. The first pass looks at every member and writes nothing: it refuses what could harm, and
learns the chips from the STAC items. The second unpacks the chips that were asked for, to names that this project makes
itself.
"""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

import pandas as pd
from tqdm import tqdm

from cloudcover.config.sections import DataParams
from cloudcover.data import tables
from cloudcover.data.layout import SPLITS, read_metadata
from cloudcover.runtime.files import part_of, read_json, sha256, write_json
from cloudcover.runtime.text import named
from cloudcover.sources.archive.safe_gzip import ArchiveError, BoundedGzip
from cloudcover.sources.archive.stac import Item, locations, parse_item
from cloudcover.sources.remote.errors import ContentError, MissingError
from cloudcover.sources.remote.fetch import finish, reserve
from cloudcover.sources.remote.http import Client, Received, check_space
from cloudcover.sources.remote.journal import WORK, Entry, Journal, locked
from cloudcover.sources.remote.stores import WebFolder
from cloudcover.sources.remote.tiff import TiffError, check_tiff
from cloudcover.sources.subset import select

logger = logging.getLogger(__name__)

STEM = "ref_cloud_cover_detection_challenge_v1"

MD5 = {
    f"{STEM}_train_source.tar.gz": "32cfe38e313bcedc09dca3f0f9575eea",
    f"{STEM}_train_labels.tar.gz": "695dfb1034924c10fbb17f9293815671",
    f"{STEM}_test_source.tar.gz": "6c67edae18716598d47298f24992db6c",
    f"{STEM}_test_labels.tar.gz": "ec2b42bb43e9a03a01ae096f9e09db9c",
}
"""MD5 of the published archives."""

LARGEST_MEMBER = 64 << 20
"""Longest file in an archive [bytes]; a band of 512 x 512 pixels has half a megabyte."""

_MOST_MEMBERS = 2_000_000


@dataclass
class Contents:
    """What the first pass learns of an archive: items by chip, and the images of each with their lengths [bytes]."""

    items: dict[str, Item] = field(default_factory=dict)
    images: dict[str, dict[str, int]] = field(default_factory=dict)


class Archive:
    """One of the four archives; it is fetched and checked only when it must be read."""

    def __init__(self, split: str, part: str, params: DataParams, known: dict[str, str], raw: Path) -> None:
        self.split, self.part = split, part
        self.name = f"{STEM}_{split}_{part}.tar.gz"
        self._url = params.url
        self._raw = raw
        self._path = Path(params.path, self.name) if params.path else raw / WORK / "archives" / self.name
        self._checked = False
        if self.name not in known:
            raise ArchiveError(f"data.checksums names no MD5 of {self.name}")
        self.md5 = known[self.name]

    def path(self) -> Path:
        """Where the archive lies, after its MD5 was compared; it is fetched if need be.

        Raises:
            ArchiveError: it has another MD5.
            MissingError: it is not there.
            DownloadError: it cannot be fetched.
        """
        if not self._checked:
            if self._url and not self._path.exists():
                self._fetch(self._url)
            elif self._path.exists():
                self._compare()
            else:
                raise MissingError(f"{self._path} is missing: see docs/data.md, or leave the split out of data.splits")
            self._checked = True
        return self._path

    def contents(self) -> Contents:
        """What the archive holds, from an earlier run where its MD5 is the same; raises as `path` and `inspect`."""
        index = self._raw / WORK / f"{self.name}.json"
        if index.exists() and (known := read_json(index))["md5"] == self.md5:
            return Contents({chip: Item(**item) for chip, item in known["items"].items()}, known["images"])
        contents = inspect(self.path())
        items = {chip: vars(item) for chip, item in contents.items.items()}
        write_json(index, {"md5": self.md5, "items": items, "images": contents.images})
        return contents

    def _compare(self) -> None:
        logger.info("checking %s", self.name)
        with self._path.open("rb") as file:
            found = hashlib.file_digest(file, "md5").hexdigest()
        if found != self.md5:
            raise ArchiveError(
                f"{self._path} has MD5 {found}, expected {self.md5}: it is damaged or another file; fetch it again, or "
                "list the MD5 of an archive of your own in data.checksums"
            )

    def _fetch(self, url: str) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part, address = part_of(self._path), WebFolder(url).url(self.name)

        def accept(part: Path, received: Received) -> None:
            if received.md5 != self.md5:
                raise ContentError(f"{self.name} arrived with MD5 {received.md5}, expected {self.md5}")
            part.replace(self._path)

        with Client() as client:
            length = client.run(client.length(address, self.name)) or 0
            have = part.stat().st_size if part.exists() else 0
            # The images are about as large as the archive: they are compressed already.
            check_space(self._raw, 2 * length - have)
            logger.info("fetching %s, %.2f of %.2f GB are there", self.name, have / 1e9, length / 1e9)
            client.run(client.download(address, part, self.name, accept, md5=True, resume=True))


def fetch(params: DataParams, raw: Path, recheck: bool = False) -> None:
    """Brings the chips that `params` asks for from the archives into `raw`, and writes its `files.csv`.

    Files that are there from an earlier run are not written again, and archives of which nothing is missing are not
    read. Archives from an address stay in the work folder until all is unpacked; a download that broke off goes on
    where it stopped.

    Raises:
        ArchiveError: an archive has another MD5, holds what could harm, or is not laid out as expected.
        DownloadError: an archive cannot be fetched, or the disk is too small.
        LayoutError, SubsetError, FolderBusyError, FolderError: as `remote.fetch`.
    """
    known = _checksums(Path(params.checksums)) if params.checksums else MD5
    with locked(raw), closing(Journal(raw, recheck)) as journal:
        contents: dict[Archive, Contents] = {}
        for split in params.splits:
            for part in ("source", "labels"):
                try:
                    archive = Archive(split, part, params, known, raw)
                    contents[archive] = archive.contents()
                except (MissingError, ArchiveError) as error:
                    if (split, part) != ("test", "labels") or not isinstance(error, MissingError):
                        raise  # the labels of the test chips were not always at hand
        _write_metadata(contents, raw, journal)
        chips = select(read_metadata(raw / WORK), list(params.splits), params.subset)
        targets = {a: _targets(a, c, chips, params.bands) for a, c in contents.items()}
        reserve(raw, {path for t in targets.values() for path in t.values()})
        missing = {
            a: {member: path for member, path in t.items() if not journal.intact(path, etag=a.md5)}
            for a, t in targets.items()
        }
        check_space(raw, sum(contents[a].images[chip][name] for a, m in missing.items() for chip, name in m))
        for archive, members in missing.items():
            if members:
                unpack(archive.path(), members, raw, journal, archive.md5)
        finish(raw, chips, {path for t in targets.values() for path in t.values()}, journal)
        _remove_archives(raw)


def _remove_archives(raw: Path) -> None:
    """Removes archives that were fetched, now that all is unpacked."""
    folder = raw / WORK / "archives"
    for name in MD5:
        (folder / name).unlink(missing_ok=True)
    if folder.exists() and not any(folder.iterdir()):
        folder.rmdir()


def _checksums(path: Path) -> dict[str, str]:
    """Reads lines of md5sum: `<32 digits>  <name>`.

    Raises:
        ArchiveError: the file cannot be read, or a line is none of these.
    """
    try:
        lines = [line.split(maxsplit=1) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise ArchiveError(f"data.checksums: {path} cannot be read: {error.strerror}") from None
    if any(len(line) != 2 or not re.fullmatch("[0-9a-f]{32}", line[0]) for line in lines):
        raise ArchiveError(f"data.checksums: {path} is not as md5sum writes it: <32 digits>  <name>")
    return {name.lstrip("*").strip(): md5 for md5, name in lines}


def inspect(path: Path) -> Contents:
    """Reads an archive without writing a byte.

    Raises:
        ArchiveError: an absolute name, a name with `..`, a link, a device, a member that is too large, a decompression
            bomb (`BoundedGzip`), an image without a STAC item, or no images at all.
    """
    contents = Contents()
    with _members(path) as members:
        for member, file in members:
            if not (match := _match(path, member.name)):
                continue
            chip, name = match
            if name == "stac.json":
                contents.items[chip] = parse_item(file.read(), f"{path.name}: {member.name}")
            else:
                contents.images.setdefault(chip, {})[name.removesuffix(".tif")] = member.size
    if not contents.images:
        raise ArchiveError(f"{path} holds no images: expected {_stem(path)}/{_stem(path)}_<chip>/<band>.tif")
    if orphans := sorted(set(contents.images) - set(contents.items)):
        raise ArchiveError(f"{path}: {len(orphans)} chips have no stac.json, such as {orphans[0]}")
    return contents


def unpack(path: Path, targets: dict[tuple[str, str], str], raw: Path, journal: Journal, md5: str) -> None:
    """Writes the images `targets` of an archive below `raw`.

    Args:
        path: the archive, already inspected.
        targets: (chip, file stem) -> path in the challenge's layout.
        raw: the folder.
        journal: of `raw`.
        md5: of the archive; stands in the journal as the version of its files.

    Raises:
        ArchiveError: names the images that are no TIFFs of the right type, after all others are written; see also
            `inspect`.
    """
    problems = []
    with (
        _members(path) as members,
        tqdm(total=len(targets), desc=f"unpack {path.name}", unit="file", disable=None) as bar,
    ):
        for member, file in members:
            match = _match(path, member.name)
            target = targets.get((match[0], match[1].removesuffix(".tif"))) if match else None
            if target is None:
                continue
            part = part_of(raw / target)
            part.parent.mkdir(parents=True, exist_ok=True)
            try:
                with part.open("wb") as output:
                    shutil.copyfileobj(file, output)
                check_tiff(part, "uint8" if "_labels/" in target else "uint16")
                journal.publish(part, target, sha256(part), md5, f"{path.name}!{member.name}")
            except TiffError as error:
                problems.append(f"{member.name} is not what it should be: {error}")
            finally:
                part.unlink(missing_ok=True)
            bar.update()
    if problems:
        raise ArchiveError(named(f"{path}: {len(problems)} images cannot be used, the others are unpacked", problems))


@contextmanager
def _members(path: Path) -> Iterator[Iterator[tuple[tarfile.TarInfo, BinaryIO]]]:
    """The regular files of an archive; see `inspect` for what is refused."""

    def walk(archive: tarfile.TarFile) -> Iterator[tuple[tarfile.TarInfo, BinaryIO]]:
        number = 0
        while member := archive.next():
            number += 1
            archive.members.clear()  # type: ignore[attr-defined]  # tarfile would remember every member
            _refuse(path, member, number)
            if member.isfile():
                file = archive.extractfile(member)
                assert file is not None
                yield member, file  # type: ignore[misc]

    try:
        with BoundedGzip(path) as stream, tarfile.open(fileobj=cast(BinaryIO, stream), mode="r:") as archive:
            yield walk(archive)
    except (tarfile.TarError, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ArchiveError(f"{path} cannot be read to its end: {error}") from None


def _refuse(path: Path, member: tarfile.TarInfo, number: int) -> None:
    name = PurePosixPath(member.name)
    reason = None
    if name.is_absolute() or ".." in name.parts or "\\" in member.name or "\0" in member.name:
        reason = "its name leads out of the archive"
    elif not (member.isdir() or member.type in (tarfile.REGTYPE, tarfile.AREGTYPE)):
        reason = "it is a link, a device or another special file"
    elif member.size > LARGEST_MEMBER:
        reason = f"it has {member.size} bytes, more than {LARGEST_MEMBER}"
    elif number > _MOST_MEMBERS:
        reason = f"the archive has more than {_MOST_MEMBERS} members"
    if reason:
        raise ArchiveError(f"{path}: refused at {member.name!r}: {reason}; nothing of it is kept")


def _stem(path: Path) -> str:
    return path.name.removesuffix(".tar.gz")


def _match(path: Path, name: str) -> tuple[str, str] | None:
    """Chip and file of a member `<stem>/<stem>_<chip>/<file>`, or None for what is not needed."""
    stem = re.escape(_stem(path))
    found = re.fullmatch(rf"(?:\./)?{stem}/{stem}_({tables.CHIP_ID.pattern})/(\w+\.tif|stac\.json)", name)
    return (found[1], found[2]) if found else None


def _write_metadata(contents: dict[Archive, Contents], raw: Path, journal: Journal) -> None:
    """The metadata tables, from the STAC items of the images."""
    sources = {archive: c for archive, c in contents.items() if archive.part == "source"}
    items = {(archive.split, chip): item for archive, c in sources.items() for chip, item in c.items.items()}
    places = locations(items)
    for split in SPLITS:
        name = f"{WORK}/{split}_metadata.csv"
        rows = [
            {
                "chip_id": chip,
                "location": places[of, chip],
                "datetime": item.datetime,
                "cloudpath": f"{of}_features/{chip}",
            }
            for (of, chip), item in sorted(items.items())
            if of == split
        ]
        if not rows:
            (raw / name).unlink(missing_ok=True)
            continue
        tables.METADATA.write(pd.DataFrame(rows), raw / name)
        found = (raw / name).stat()
        origin = f"{STEM}_{split}_source.tar.gz (STAC items)"
        journal.add(Entry(name, found.st_size, sha256(raw / name), found.st_mtime_ns, "", origin))


def _targets(archive: Archive, contents: Contents, chips: pd.DataFrame, bands: list[str]) -> dict[tuple[str, str], str]:
    """Where the images of an archive go: (chip of the archive, file stem) -> path in the layout."""
    wanted = set(chips.loc[chips["split"] == archive.split, "chip_id"])
    targets: dict[tuple[str, str], str] = {}
    for chip, names in contents.images.items():
        source = contents.items[chip].source or chip
        if archive.part == "source" and chip in wanted:
            targets |= {(chip, band): f"{archive.split}_features/{chip}/{band}.tif" for band in bands if band in names}
        elif archive.part == "labels" and source in wanted and "labels" in names:
            targets[chip, "labels"] = f"{archive.split}_labels/{source}.tif"
    if len(set(targets.values())) != len(targets):
        raise ArchiveError(f"{archive.name}: two labels name the same source item")
    return targets
