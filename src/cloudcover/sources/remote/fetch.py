"""Sources on the network, file by file: finds out what is missing, fetches it side by side, and lists all of it."""

from __future__ import annotations

import asyncio
import logging
import re
import shutil
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pandas as pd
from tqdm import tqdm

from cloudcover.config.sections import DataParams
from cloudcover.data import ownership, tables
from cloudcover.data.chips import stem_of
from cloudcover.data.layout import EXTRA, SPLITS, read_metadata, refuse_strays, remove_empty_folders, stray_labels
from cloudcover.runtime.files import part_of, sha256
from cloudcover.sources.remote.errors import AccessError, ContentError, DownloadError, MissingError
from cloudcover.sources.remote.http import Client, Received, check_space
from cloudcover.sources.remote.journal import WORK, Entry, Journal, locked
from cloudcover.sources.remote.stores import FOLDERS, Listed, ObjectStore, open_store
from cloudcover.sources.remote.tiff import TiffError, check_tiff
from cloudcover.sources.subset import select

logger = logging.getLogger(__name__)
T = TypeVar("T")

CONNECTIONS = 16
"""Files in flight: enough to hide the latency of a store, few enough for one that counts requests."""

_TOLERATED = 10
"""Files that may fail for good before the others are given up, too."""


@dataclass(frozen=True)
class Wanted:
    """A file to fetch: its path in the layout, where the store has it, its dtype or empty for a table."""

    path: str
    listed: Listed
    dtype: str = ""


def fetch(params: DataParams, raw: Path, connections: int = CONNECTIONS, recheck: bool = False) -> None:
    """Brings the chips that `params` asks for from an Azure container, a bucket or a web folder into `raw`.

    What `raw` has from an earlier run is kept, what the selection does not name is removed, and `files.csv` is
    written at the end. Memory does not grow with the number of files.

    Args:
        params: which store, which part of the set.
        raw: gets the challenge's layout.
        connections: files in flight.
        recheck: read the files that are there and compare their hashes, instead of trusting their modification times.

    Raises:
        DownloadError: a file cannot be fetched or is not what it should be, or the disk is too small.
        SecretError: see `stores.open_store`.
        LayoutError: the set has no metadata, see `layout.read_metadata`, or too many files that are no labels.
        SubsetError: see `subset.select`.
        FolderBusyError: another download works in `raw`.
        FolderError: a file in `raw` that is somebody else's would be overwritten.
    """
    store = open_store(params)
    with locked(raw), Client() as client, closing(Journal(raw, recheck)) as journal:
        job = Job(store, client, journal, raw, connections)
        listing = store.files()
        folders = job.fetch_tables(listing)
        published = read_metadata(raw / WORK)
        strays = stray_labels(map(Path, listing or ()), published)
        refuse_strays(store.origin(""), strays, len(published), params.max_quarantined)
        chips = select(published, list(params.splits), params.subset)
        wanted = plan(chips, params.bands, folders, listing)
        reserve(raw, {file.path for file in wanted})
        job.run(wanted, estimate=2 * params.chip_size**2)
        finish(raw, chips, {file.path for file in wanted}, journal)


def reserve(raw: Path, images: set[str]) -> None:
    """Records the files of the set as this program's, tables included; see `ownership.reserve`."""
    ownership.reserve(raw, images | {f"{split}_metadata.csv" for split in SPLITS} | set(EXTRA))


def plan(
    chips: pd.DataFrame, bands: list[str], folders: dict[str, str], listing: dict[str, Listed] | None
) -> list[Wanted]:
    """The files of the chips.

    Args:
        chips: chip_id, split.
        bands: names of the bands.
        folders: split -> folder below the root, for stores that cannot be listed.
        listing: what the store has, or None; bands that it lacks are logged, and packing lists their chips.
    """
    names = {} if listing is None else {path.rpartition(".")[0]: path for path in listing if stem_of(path)}
    wanted, missing = [], []
    for chip, split in zip(chips["chip_id"], chips["split"], strict=True):
        files = {f"{split}_features/{chip}/{band}": "uint16" for band in bands}
        files[f"{split}_labels/{chip}"] = "uint8"
        for stem, dtype in files.items():
            if listing is None:
                path = f"{stem}.tif"
                wanted.append(Wanted(path, Listed(folders[split] + path), dtype))
            elif path := names.get(stem, ""):
                wanted.append(Wanted(path, listing[path], dtype))
            elif dtype == "uint16":
                missing.append(f"{stem}.tif")
    if missing:
        _warn_of(missing)
    return wanted


def _warn_of(bands: list[str]) -> None:
    logger.warning("the source lacks %d bands, such as %s: packing will list their chips", len(bands), bands[0])


class Job:
    """The transfer of many files into one folder."""

    def __init__(self, store: ObjectStore, client: Client, journal: Journal, raw: Path, connections: int) -> None:
        self.store = store
        self.client = client
        self.journal = journal
        self.raw = raw
        self.connections = connections

    def fetch_tables(self, listing: dict[str, Listed] | None) -> dict[str, str]:
        """Fetches the metadata into the work folder, and returns in which folder of the store each split lies.

        Raises:
            DownloadError: there is no train_metadata.csv, or see `Client.download`.
        """
        folders: dict[str, str] = {}
        for split in SPLITS:
            for folder in FOLDERS:
                if self._table(f"{split}_metadata.csv", folder, listing):
                    folders[split] = folder
                    break
            else:  # an earlier source may have had it
                (self.raw / WORK / f"{split}_metadata.csv").unlink(missing_ok=True)
        if "train" not in folders:
            raise DownloadError(f"{self.store.origin('train_metadata.csv')} does not exist: check data.url")
        for name in EXTRA:
            any(self._table(name, folder, listing) for folder in FOLDERS)
        return folders

    def _table(self, name: str, folder: str, listing: dict[str, Listed] | None) -> bool:
        path = f"{WORK}/{name}"
        known = self.journal.entries.get(path)
        if listing is not None:
            listed = listing.get(name)
            if listed is None or listed.key != folder + name:
                return False
            if not self.journal.intact(path, listed.bytes, listed.etag):
                self.client.run(self._one(Wanted(path, listed)))
            return True
        origin = self.store.origin(folder + name)
        fresh = known is not None and known.origin == origin and self.journal.intact(path)
        try:
            self.client.run(self._one(Wanted(path, Listed(folder + name)), known.etag if known and fresh else ""))
        except MissingError:
            return False
        return True

    def run(self, wanted: list[Wanted], estimate: int) -> None:
        """Fetches the files that the folder does not have.

        Args:
            wanted: all files.
            estimate: length of a file of which the store tells none [bytes].

        Raises:
            DownloadError: names the files that failed; the others are there.
        """
        missing = [f for f in wanted if not self.journal.intact(f.path, f.listed.bytes, f.listed.etag)]
        need = sum(estimate if f.listed.bytes is None else f.listed.bytes for f in missing)
        logger.info("%d of %d files are missing, up to %.2f GB", len(missing), len(wanted), need / 1e9)
        check_space(self.raw, need)
        for folder in {(self.raw / file.path).parent for file in missing}:
            folder.mkdir(parents=True, exist_ok=True)
        failed: list[DownloadError] = []
        lacking: list[str] = []
        start, received = time.monotonic(), 0
        bar = tqdm(total=len(missing), desc="download", unit="file", disable=None, smoothing=0.1)

        async def one(file: Wanted) -> None:
            nonlocal received
            try:
                count = await self._one(file)
            except MissingError:
                self.journal.add(Entry(file.path, 0, "", 0, "", self.store.origin(file.listed.key), absent=True))
                count = 0
                if file.dtype == "uint16":
                    lacking.append(file.path)
                    if len(lacking) > max(_TOLERATED, len(wanted) // 50):
                        raise
            except AccessError:
                raise
            except DownloadError as error:
                failed.append(error)
                count = 0
            if len(failed) > _TOLERATED:
                raise failed[0]
            received += count
            rate = received / 1e6 / (time.monotonic() - start)
            bar.set_postfix_str(f"{received / 1e6:,.0f} MB, {rate:,.1f} MB/s", refresh=False)
            bar.update()

        with bar:
            self.client.run(gather_bounded(missing, one, self.connections))
        if lacking:
            _warn_of(lacking)
        if failed:
            shown = "\n".join(f"  {error}" for error in failed[:5])
            raise DownloadError(
                f"{len(failed)} of {len(missing)} files failed, the others are kept; run again to fetch them:\n{shown}"
            )
        seconds = time.monotonic() - start
        logger.info("fetched %d files, %.1f MB, in %.1f s", len(missing), received / 1e6, seconds)

    async def _one(self, file: Wanted, known_etag: str = "") -> int:
        """Fetches, checks and publishes a file; returns its length [bytes], 0 if it had not changed."""
        md5 = self.store.etag_is_md5
        origin = self.store.origin(file.listed.key)

        def accept(part: Path, received: Received) -> None:
            check_content(part, file, received, md5)
            self.journal.publish(part, file.path, received.sha256, received.etag or file.listed.etag, origin)

        part = part_of(self.raw / file.path)
        received = await self.client.download(self.store.url(file.listed.key), part, file.path, accept, known_etag, md5)
        return received.bytes


def check_content(part: Path, file: Wanted, received: Received, etag_is_md5: bool) -> None:
    """Checks length, hash and form of a file that has arrived.

    Raises:
        ContentError: names the file and what is wrong with it.
    """
    if file.listed.bytes is not None and received.bytes != file.listed.bytes:
        raise ContentError(f"{file.path} has {received.bytes} bytes, but the listing says {file.listed.bytes}")
    expected = received.server_md5
    if etag_is_md5 and received.etag_is_hash and re.fullmatch(r"[0-9a-f]{32}", received.etag):
        expected = received.etag
    if expected and received.md5 != expected:
        raise ContentError(f"{file.path} arrived with MD5 {received.md5}, but the server says {expected}")
    try:
        if file.dtype:
            check_tiff(part, file.dtype)
        else:
            _check_table(part)
    except TiffError as error:
        raise ContentError(f"{file.path} is not what it should be: {error}") from None


def _check_table(part: Path) -> None:
    with part.open("rb") as file:
        if file.read(512).lstrip()[:1] in (b"<", b"{", b""):
            raise TiffError("it is an HTML, XML or JSON page or empty, not a table")


async def gather_bounded(items: Iterable[T], do: Callable[[T], Awaitable[None]], most: int) -> None:
    """Works through items, `most` at once; the first exception cancels the others and is raised."""
    source = iter(items)

    async def work() -> None:
        for item in source:
            await do(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(most):
                group.create_task(work())
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


def finish(raw: Path, chips: pd.DataFrame, paths: set[str], journal: Journal) -> None:
    """Publishes the tables of the selected chips, removes what was not asked for, and writes `files.csv`.

    Args:
        raw: the folder.
        chips: the selection, with split and scene.
        paths: files of the layout that stay.
        journal: of `raw`, with the original tables in the work folder.
    """
    kept = set(paths)
    for split in SPLITS:
        name = f"{split}_metadata.csv"
        rows = chips[chips["split"] == split].drop(columns=["split", "scene"])
        if len(rows):
            _publish_table(raw, name, rows, journal)
            kept.add(name)
    for name in EXTRA:
        if f"{WORK}/{name}" in journal.entries and (raw / WORK / name).exists():
            _copy(raw, name, journal, journal.entries[f"{WORK}/{name}"])
            kept.add(name)
    journal.keep(kept | {path for path in journal.entries if path.startswith(WORK)})
    present = {path: e for path, e in journal.entries.items() if path in kept and not e.absent}
    ownership.prune(raw, present)
    remove_empty_folders(raw)
    files = [present[path] for path in sorted(present)]
    columns = {name: [getattr(entry, name) for entry in files] for name in tables.FILES.columns}
    tables.FILES.write(pd.DataFrame(columns), raw / "files.csv")


def _publish_table(raw: Path, name: str, rows: pd.DataFrame, journal: Journal) -> None:
    """A table as the source has it, or with the selected rows only."""
    entry = journal.entries[f"{WORK}/{name}"]
    if len(tables.METADATA.read(raw / WORK / name)) == len(rows):
        _copy(raw, name, journal, entry)
        return
    part = part_of(raw / name)
    tables.METADATA.write(rows, part)
    journal.publish(part, name, sha256(part), "", f"{entry.origin} (subset)")


def _copy(raw: Path, name: str, journal: Journal, entry: Entry) -> None:
    part = part_of(raw / name)
    shutil.copyfile(raw / WORK / name, part)
    journal.publish(part, name, entry.sha256, entry.etag, entry.origin)
