"""A set on the network, file by file: find what is missing, fetch it side by side, and list all of it."""

from __future__ import annotations

import logging
import shutil
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from cloudcover.config.secrets import SAS_FILE, SAS_URL, SecretError, sas
from cloudcover.config.sections import DataParams
from cloudcover.data import ownership, tables
from cloudcover.data.chips import stem_of
from cloudcover.data.layout import EXTRA, read_metadata, remove_empty_folders
from cloudcover.data.strays import refuse_strays, stray_labels
from cloudcover.runtime.files import atomic, part_of
from cloudcover.runtime.locks import hold
from cloudcover.runtime.text import named
from cloudcover.sources.archive.store import ARCHIVES, Archives
from cloudcover.sources.remote import content, stores
from cloudcover.sources.remote.errors import AccessError, DownloadError, MissingError
from cloudcover.sources.remote.http import WebFolder
from cloudcover.sources.remote.journal import WORK, Entry, Journal
from cloudcover.sources.remote.stores import TABLES, Listed, ObjectStore
from cloudcover.sources.subset import select

logger = logging.getLogger(__name__)

Store = ObjectStore | WebFolder | Archives

_TOLERATED = 10
"""Files that may fail for good before the others are given up, too; in a large set 2 %."""


def open_store(params: DataParams, raw: Path) -> Store:
    """The container, bucket, web folder or archives that the parameters and the environment name, for use in `raw`.

    Raises:
        SecretError: No SAS where one is named, or a token without an address.
        DownloadError, ArchiveError: An address that fits no container or bucket, or an unreadable `data.checksums`.
    """
    if params.source == "archive":
        return Archives(params, raw)
    if params.source == "http":
        return WebFolder(str(params.url))
    if params.source == "s3":
        return stores.s3_bucket(str(params.url), params.endpoint)
    secret = sas(params.sas_file)
    if secret is None:
        logger.info("no SAS in %s, %s or data.sas_file: reading without one", SAS_URL, SAS_FILE)
        return stores.azure_container(params.url or stores.MIRROR)
    address, _, token = secret.rpartition("?")
    if not (params.url or address):
        container = "https://ACCOUNT.blob.core.windows.net/CONTAINER"
        raise SecretError(f"{SAS_URL} holds a token without an address: set data.url to {container}")
    return stores.azure_container(params.url or address, token)


def fetch(params: DataParams, raw: Path, recheck: bool = False) -> None:
    """Bring the chips that `params` asks for from a source on the network, or from archives, into `raw`.

    What `raw` has from an earlier run is kept, what the selection does not name is removed, and `files.csv` is written
    at the end. With `recheck` the files that are there are read and compared, and no modification time is trusted.

    Raises:
        DownloadError: A file cannot be fetched or is not what it should be, or the disk is too small.
        LayoutError: The set has no metadata, see `layout.read_metadata`, or too many files that are no labels.
        FolderBusyError: Another download works in `raw`.
        FolderError: A file in `raw` that is somebody else's would be overwritten.
        SubsetError, SecretError, ArchiveError: See `subset.select`, `open_store` and `archive.store`.
    """
    store = open_store(params, raw)
    with hold(raw / WORK / "lock", f"another download works in {raw}"):
        journal, listing = Journal(raw, recheck), store.files()
        _fetch_tables(store, listing, raw)
        published = read_metadata(raw / WORK)
        strays = stray_labels(map(Path, listing), published)
        refuse_strays(store.origin(""), strays, len(published), params.max_quarantined)
        chips = select(published, list(params.splits), params.subset)
        wanted = plan(chips, params.bands, listing, store.lists)
        ownership.reserve(raw, {*wanted, *TABLES})
        _fetch_missing(store, wanted, journal, estimate=2 * params.chip_size**2)
        journal.keep({*wanted, *_publish_tables(store, listing, chips, journal)})
        present = [vars(entry) for _, entry in sorted(journal.entries.items()) if not entry.absent]
        ownership.prune(raw, [entry["path"] for entry in present])
        remove_empty_folders(raw)
        tables.FILES.write(pd.DataFrame(present, columns=list(tables.FILES.columns)), raw / "files.csv")
        shutil.rmtree(raw / WORK / ARCHIVES, ignore_errors=True)


def plan(chips: pd.DataFrame, bands: list[str], listing: dict[str, Listed], lists: bool = True) -> dict[str, Listed]:
    """The files of the chips by path, in the order of the listing.

    Args:
        chips: chip_id, split.
        bands: Names of the bands.
        listing: What the store has, by path.
        lists: The listing has all files, not only the tables. Bands that it lacks are logged, and packing lists their
            chips.
    """
    stems = [
        stem
        for chip, split in zip(chips["chip_id"], chips["split"], strict=True)
        for stem in (*(f"{split}_features/{chip}/{band}" for band in bands), f"{split}_labels/{chip}")
    ]
    if lists:
        names = {path.rpartition(".")[0]: path for path in listing if stem_of(path)}
        _warn_of([f"{stem}.tif" for stem in stems if "_features/" in stem and stem not in names])
        chosen = set(stems)
        return {path: listing[path] for stem, path in names.items() if stem in chosen}
    split_tables = ((stem, f"{stem.partition('_')[0]}_metadata.csv") for stem in stems)
    return {f"{s}.tif": Listed(f"{listing[table].key.removesuffix(table)}{s}.tif") for s, table in split_tables}


def _warn_of(bands: list[str]) -> None:
    if bands:
        logger.warning("the source lacks %d bands, such as %s: packing will list their chips", len(bands), bands[0])


def _fetch_tables(store: Store, listing: dict[str, Listed], raw: Path) -> None:
    """Fetch the tables of the whole set into the work folder."""
    if not any(name in listing for name in TABLES if name not in EXTRA):
        raise DownloadError(f"{store.origin(TABLES[0])} does not exist: check data.url")
    for name in TABLES:
        target = raw / WORK / name
        if name not in listing:  # an earlier source may have had it
            target.unlink(missing_ok=True)
            continue
        with atomic(target) as part:
            store.fetch(listing[name].key, part)
            content.check(part, name, listing[name].bytes)


def _fetch_missing(store: Store, wanted: dict[str, Listed], journal: Journal, estimate: int) -> None:
    """Fetch the files that the folder does not have, of `estimate` bytes where the store reports no length.

    Raises:
        DownloadError: Names the files that failed; the others are there.
    """
    missing = {path: listed for path, listed in wanted.items() if not journal.intact(path, listed.bytes, listed.etag)}
    need = sum(estimate if listed.bytes is None else listed.bytes for listed in missing.values())
    logger.info("%d of %d files are missing, up to %.2f GB", len(missing), len(wanted), need / 1e9)
    content.check_space(journal.root, need)
    for folder in {(journal.root / path).parent for path in missing}:
        folder.mkdir(parents=True, exist_ok=True)
    failed: list[str] = []
    lacking: list[str] = []
    most = max(_TOLERATED, len(wanted) // 50)
    start, received = time.monotonic(), 0
    bar = tqdm(total=len(missing), desc="download", unit="file", disable=None, smoothing=0.1)
    with ThreadPoolExecutor(store.connections) as pool, bar:
        futures = {pool.submit(_fetch_one, store, *item, journal): item for item in missing.items()}
        try:
            for future in as_completed(futures):
                path, listed = futures[future]
                try:
                    received += future.result()
                except MissingError:
                    journal.add(Entry(path, 0, "", 0, "", store.origin(listed.key), absent=True))
                    lacking += [path] if "_features/" in path else []
                    if len(lacking) > most:
                        raise
                except DownloadError as error:
                    failed.append(str(error))
                    if isinstance(error, AccessError) or len(failed) > most:
                        raise
                bar.set_postfix_str(f"{received / 1e6:,.0f} MB", refresh=False)
                bar.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    _warn_of(lacking)
    if failed:
        what = f"{len(failed)} of {len(missing)} files failed, the others are kept; run again to fetch them"
        raise DownloadError(named(what, failed))
    logger.info("fetched %d files, %.1f MB, in %.1f s", len(missing), received / 1e6, time.monotonic() - start)


def _fetch_one(store: Store, path: str, listed: Listed, journal: Journal) -> int:
    """Fetch, check and publish a file, and return its length [bytes]."""
    part = part_of(journal.root / path)
    try:
        etag = store.fetch(listed.key, part)
        length = content.check(part, path, listed.bytes)
        journal.publish(part, path, etag or listed.etag, store.origin(listed.key))
    finally:
        part.unlink(missing_ok=True)
    return length


def _publish_tables(store: Store, listing: dict[str, Listed], chips: pd.DataFrame, journal: Journal) -> set[str]:
    """Bring the tables of the selected chips from the work folder to their place, and return their names."""
    published = set()
    for name in TABLES:
        source, part = journal.root / WORK / name, part_of(journal.root / name)
        rows = chips[chips["split"] == name.removesuffix("_metadata.csv")].drop(columns=["split", "scene"])
        if not source.exists() or (name not in EXTRA and rows.empty):
            continue
        origin = store.origin(listing[name].key)
        if name in EXTRA or len(tables.METADATA.read(source)) == len(rows):
            shutil.copyfile(source, part)
        else:
            tables.METADATA.write(rows, part)
            origin += " (subset)"
        journal.publish(part, name, "", origin)
        published.add(name)
    return published
