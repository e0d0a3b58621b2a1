"""A set on the network, file by file: find missing files, fetch them concurrently, and list the whole set."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from cloudcover.config.secrets import SAS_FILE, SAS_URL, sas
from cloudcover.config.sections import DataParams
from cloudcover.data import ownership, tables
from cloudcover.data.chips import stem_of
from cloudcover.data.layout import EXTRA, NAMES, hashed, read_metadata, remove_empty_folders
from cloudcover.data.strays import refuse_strays, stray_labels
from cloudcover.runtime.files import atomic, full_disk_named, part_of
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
    """Return the container, bucket, web folder or archives given by the parameters and the environment.

    Raises:
        SecretError: A named SAS is missing, or there is a token without an address.
        DownloadError, ArchiveError: The address is no container or bucket, or `data.checksums` is unreadable.
    """
    if params.source == "archive":
        return Archives(params, raw)
    if params.source == "http":
        return WebFolder(str(params.url))
    if params.source == "s3":
        return stores.s3_bucket(str(params.url), params.endpoint)
    address, token = sas(params.sas_file)
    if not token:
        logger.info("no SAS in %s, %s or data.sas_file: reading without one", SAS_URL, SAS_FILE)
        address = stores.MIRROR
    return stores.azure_container(params.url or address, token)


def fetch(params: DataParams, raw: Path, recheck: bool = False) -> None:
    """Fetch the chips selected by `params` from a source on the network, or from archives, to `raw`.

    Files of an earlier run are kept, those outside the selection are removed, and `files.csv` is written at the end.
    With `recheck`, existing files are read and compared, and no modification time is trusted.

    Raises:
        DownloadError: A file cannot be fetched or is not the expected one, or the disk is too small.
        LayoutError: The set has no metadata, see `layout.read_metadata`, or too many unrecognised files.
        FolderBusyError: Another download works in `raw`.
        FolderError: A file in `raw` that the program did not create would be overwritten.
        SubsetError, SecretError, ArchiveError: See `subset.select`, `open_store` and `archive.store`.
    """
    store, work = open_store(params, raw), raw / WORK
    with hold(work / "lock", f"another download works in {raw}"):
        journal, listing = Journal(raw, recheck), store.files()
        _fetch_metadata(store, listing, work)
        published = read_metadata(work)
        strays = stray_labels(map(Path, listing), published)
        refuse_strays(store.origin(""), strays, len(published), params.max_quarantined)
        chips = select(published, list(params.splits), params.subset)
        wanted = plan(chips, params.bands, listing, store.lists)
        ownership.reserve(raw, {*wanted, *TABLES})
        _fetch_missing(store, wanted, journal, estimate=2 * params.chip_size**2)
        journal.keep(wanted.keys())
        manifest = pd.concat([journal.manifest(), *_write_metadata(store, listing, chips, raw)]).sort_values("path")
        ownership.prune(raw, list(manifest["path"]), NAMES)
        remove_empty_folders(raw)
        tables.FILES.write(manifest, raw / "files.csv")
        shutil.rmtree(work / ARCHIVES, ignore_errors=True)


def plan(chips: pd.DataFrame, bands: list[str], listing: dict[str, Listed], lists: bool = True) -> dict[str, Listed]:
    """Return the files of the chips by path, in the order of the listing, and the crosswalk.

    Args:
        chips: chip_id, split.
        bands: Names of the bands.
        listing: Files of the store, by path.
        lists: Whether the listing has all files, not only the tables. Bands that it lacks are logged, and packing lists
            their chips.
    """
    stems = {
        f"{split}_{stem}": f"{split}_metadata.csv"
        for chip, split in zip(chips["chip_id"], chips["split"], strict=True)
        for stem in (*(f"features/{chip}/{band}" for band in bands), f"labels/{chip}")
    }
    chosen = {name: listing[name] for name in EXTRA if name in listing}
    if not lists:
        roots = {table: listing[table].key.removesuffix(table) for table in set(stems.values())}
        return chosen | {f"{stem}.tif": Listed(f"{roots[table]}{stem}.tif") for stem, table in stems.items()}
    names = {path.rpartition(".")[0]: path for path in listing if stem_of(path)}
    _warn_of([f"{stem}.tif" for stem in stems if "_features/" in stem and stem not in names])
    return chosen | {path: listing[path] for stem, path in names.items() if stem in stems}


def _warn_of(bands: list[str]) -> None:
    if bands:
        logger.warning("the source lacks %d bands, such as %s: packing will list their chips", len(bands), bands[0])


def _fetch_metadata(store: Store, listing: dict[str, Listed], work: Path) -> None:
    """Fetch the metadata of the whole set into the work folder."""
    if not listing.keys() & set(TABLES):
        raise DownloadError(f"{store.origin(TABLES[0])} does not exist: check data.url")
    for name in TABLES:
        (work / name).unlink(missing_ok=True)  # an earlier source may have had more
        if name in listing:
            with atomic(work / name) as part:
                store.fetch(listing[name].key, part)
                content.check(part, name, listing[name].bytes)


def _write_metadata(store: Store, listing: dict[str, Listed], chips: pd.DataFrame, raw: Path) -> Iterator[pd.DataFrame]:
    """Write the metadata of the selected chips, and yield its rows of `tables.FILES`."""
    for split, rows in chips.groupby("split"):
        name = f"{split}_metadata.csv"
        tables.METADATA.write(rows.drop(columns=["split", "scene"]), raw / name)
        yield hashed(raw, [Path(name)], store.origin(listing[name].key), progress=False)


def _fetch_missing(store: Store, wanted: dict[str, Listed], journal: Journal, estimate: int) -> None:
    """Fetch the missing files; `estimate` is the length [bytes] of those for which the store reports none.

    Raises:
        DownloadError: Some files failed, which the message names; all others are in place.
    """
    missing = {
        path: listed
        for path, listed in wanted.items()
        if not journal.intact(path, store.origin(listed.key), listed.bytes, listed.etag)
    }
    need = sum(estimate if listed.bytes is None else listed.bytes for listed in missing.values())
    logger.info("%d of %d files are missing, up to %.2f GB", len(missing), len(wanted), need / 1e9)
    content.check_space(journal.root, need)
    for folder in {(journal.root / path).parent for path in missing}:
        folder.mkdir(parents=True, exist_ok=True)
    failed: dict[str, DownloadError] = {}
    most = max(_TOLERATED, len(wanted) // 50)
    start, received = time.monotonic(), 0
    bar = tqdm(total=len(missing), desc="download", unit="file", disable=None, smoothing=0.1)
    with ThreadPoolExecutor(store.connections) as pool, bar:
        futures = {pool.submit(_fetch_one, store, path, listed, journal): path for path, listed in missing.items()}
        try:
            for future in as_completed(futures):
                try:
                    received += future.result()
                except DownloadError as error:
                    failed[futures[future]] = error
                    if isinstance(error, AccessError) or len(failed) > most:
                        raise
                bar.set_postfix_str(f"{received / 1e6:,.0f} MB", refresh=False)
                bar.update()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    lacking = [path for path, error in failed.items() if isinstance(error, MissingError)]
    _warn_of(lacking)
    if wrong := [str(error) for path, error in failed.items() if path not in lacking]:
        what = f"{len(wrong)} of {len(missing)} files failed, the others are kept; run again to fetch them"
        raise DownloadError(named(what, wrong))
    logger.info("fetched %d files, %.1f MB, in %.1f s", len(missing), received / 1e6, time.monotonic() - start)


def _fetch_one(store: Store, path: str, listed: Listed, journal: Journal) -> int:
    """Fetch, check and publish a file, and return its length [bytes], 0 if the source has no such label."""
    part, origin = part_of(journal.root / path), store.origin(listed.key)
    try:
        with full_disk_named(journal.root / path, part):
            store.fetch(listed.key, part)
            length = content.check(part, path, listed.bytes)
            journal.publish(part, path, listed.etag, origin)
        return length
    except MissingError:
        journal.add(Entry(path, 0, "", 0, "", origin, absent=True))
        if "_labels/" not in path:
            raise
        return 0
    finally:
        part.unlink(missing_ok=True)
