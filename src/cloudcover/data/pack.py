"""Packing: thousands of GeoTIFFs become a few shards that are read by memory map.

A chip's shard follows from its id alone, so that a new or removed chip changes one shard and DVC uploads no other:
the shard is the first bits of the id's SHA-256, as many as keep the mean at `chips_per_shard` or below.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from cloudcover.config.sections import DataParams
from cloudcover.data import tables
from cloudcover.data.chips import IGNORE_INDEX, Chip, ChipError, read_chip
from cloudcover.data.layout import chip_files, orphans, read_metadata
from cloudcover.data.statistics import band_statistics, flags
from cloudcover.data.values import report, suspected_offset
from cloudcover.runtime.arrays import create_array
from cloudcover.runtime.files import atomic, fingerprint, sha256
from cloudcover.runtime.workers import exit_with_parent

SHARD_FILE = re.compile(r"(?:chips|labels|shard)-(\d{5})\.(?:npy|parquet)")
CONVERTED, SUSPECTED = "converted:", "suspected-offset"


class PackError(ValueError):
    """The chips cannot be packed; the message lists the first of them."""


@dataclass(frozen=True)
class _Job:
    shard: int
    chips: list[dict[str, str]]
    raw: Path
    out: Path
    params: DataParams


def shard_of(chip_id: str, shards: int) -> int:
    """Shard of a chip among `shards`, a power of two."""
    return int.from_bytes(hashlib.sha256(chip_id.encode()).digest()[:4], "big") & (shards - 1)


def pack(raw: Path, out: Path, quarantine: Path, params: DataParams, workers: int = 1) -> None:
    """Packs the chips below `raw` into the store `out`.

    Shards whose sources did not change are kept. Memory holds one shard per worker.

    Args:
        raw: folder in the challenge's layout, with `files.csv`.
        out: gets `index.parquet` (`tables.INDEX` and band statistics), `chips-*.npy` (N x B x H x W uint16) and
            `labels-*.npy` (N x H x W uint8, 255 where unknown).
        quarantine: gets the unusable chips by `tables.QUARANTINE`.
        params: bands, sizes, nodata value, offset and tolerance.
        workers: processes.

    Raises:
        PackError: more than `max_quarantined` of the chips are unusable, no chip is left, or no label of the set holds
            a 1 while some hold 255 (a 0/255 mask).
        TableError: the metadata or the manifest breaks its schema.
    """
    chips = read_metadata(raw)
    hashes = tables.FILES.read(raw / "files.csv").set_index("path")["sha256"]
    listed = dict(zip(hashes.index, hashes, strict=True))
    differences = orphans(raw, chips)
    unusable = [
        {"chip_id": c, "band": "", "reason": "listed in the metadata, but there is no folder of bands"}
        for c in differences["rows without chips"]
    ] + [
        {"chip_id": c, "band": "", "reason": "has a folder of bands, but no row in the metadata"}
        for c in differences["chips without rows"]
    ]
    usable = chips[~chips["chip_id"].isin(differences["rows without chips"])]
    jobs = _plan(usable, listed, raw, out, params)
    index, more = _run(jobs, workers)
    quarantined = pd.DataFrame(unusable + more, columns=list(tables.QUARANTINE.columns))
    _tolerate(quarantined, total=len(chips) + len(differences["chips without rows"]), params=params)
    if index.empty:
        raise PackError("no chip is left to pack")
    _refuse_255_masks(index)
    tables.QUARANTINE.write(quarantined, quarantine)
    _remove_other_shards(out, {job.shard for job in jobs})
    _report(index)
    tables.INDEX.write(index.sort_values("chip_id"), out / "index.parquet")


def _plan(chips: pd.DataFrame, hashes: dict[str, str], raw: Path, out: Path, params: DataParams) -> list[_Job]:
    shards = 2 ** max(0, math.ceil(math.log2(len(chips) / params.chips_per_shard))) if len(chips) else 1
    by_folder: dict[str, list[str]] = {}
    for path, digest in hashes.items():
        if path.endswith(".tif"):
            folder = path.rsplit("/", 1)[0] if "_features/" in path else path.removesuffix(".tif")
            by_folder.setdefault(folder, []).append(f"{path}:{digest}")
    planned: dict[int, list[dict[str, str]]] = {}
    for chip in chips.sort_values("chip_id").to_dict("records"):
        folders = [f"{chip['split']}_{part}/{chip['chip_id']}" for part in ("features", "labels")]
        files = sorted(file for folder in folders for file in by_folder.get(folder, []))
        digest = fingerprint([files, chip["location"], chip["datetime"], chip["split"]])
        planned.setdefault(shard_of(chip["chip_id"], shards), []).append(
            {**{str(k): str(v) for k, v in chip.items()}, "source_sha256": digest, "files": "\n".join(files)}
        )
    return [_Job(shard, planned[shard], raw, out, params) for shard in sorted(planned)]


def _run(jobs: list[_Job], workers: int) -> tuple[pd.DataFrame, list[dict[str, str]]]:
    frames, unusable = [], []
    total = sum(len(job.chips) for job in jobs)
    with ExitStack() as stack:
        bar = stack.enter_context(tqdm(total=total, desc="pack", unit="chip", disable=None))
        packed: Iterable[tuple[pd.DataFrame, list[dict[str, str]]]] = map(_pack_shard, jobs)
        if workers > 1:
            pool = stack.enter_context(ProcessPoolExecutor(workers, get_context("spawn"), exit_with_parent))
            packed = pool.map(_pack_shard, jobs)
        for job, (frame, problems) in zip(jobs, packed, strict=True):
            frames.append(frame)
            unusable += problems
            bar.update(len(job.chips))
    filled = [f for f in frames if len(f)]
    return (pd.concat(filled) if filled else pd.DataFrame()), unusable


def _pack_shard(job: _Job) -> tuple[pd.DataFrame, list[dict[str, str]]]:
    """Packs one shard, or keeps the one on disk if its sources and the parameters are the same."""
    part = job.out / f"shard-{job.shard:05d}.parquet"
    key = fingerprint(
        [
            [job.params.bands, job.params.chip_size, job.params.nodata, job.params.offset],
            [c["source_sha256"] for c in job.chips],
        ]
    )
    names = [job.out / f"{kind}-{job.shard:05d}.npy" for kind in ("chips", "labels")]
    if part.exists() and all(n.exists() for n in names):
        kept = pd.read_parquet(part)
        if kept.attrs.get("key") == key:
            return kept, []
    rows: list[dict[str, object]] = []
    chips: list[NDArray[np.uint16]] = []
    labels: list[NDArray[np.uint8]] = []
    unusable: list[dict[str, str]] = []
    for entry in job.chips:
        try:
            chip = _read(entry, job)
        except ChipError as error:
            unusable.append({"chip_id": entry["chip_id"], "band": error.band, "reason": error.reason})
            continue
        rows.append(_row(entry, chip, job, row=len(rows)))
        chips.append(chip.bands)
        size = job.params.chip_size
        labels.append(chip.label if chip.label is not None else np.full((size, size), IGNORE_INDEX, np.uint8))
    frame = pd.DataFrame(rows)
    if not rows:
        return frame, unusable
    part.unlink(missing_ok=True)  # it is the seal of the two arrays: gone first, back last
    _save(names[0], np.stack(chips))
    _save(names[1], np.stack(labels))
    if not unusable:
        frame.attrs["key"] = key
    with atomic(part) as temporary:
        frame.to_parquet(temporary, index=False)
    return frame, unusable


def _save(path: Path, values: NDArray[Any]) -> None:
    with atomic(path) as part:
        array = create_array(part, values.dtype, values.shape)
        array[:] = values
        array.flush()


def _read(entry: dict[str, str], job: _Job) -> Chip:
    files = chip_files(job.raw, entry["chip_id"], entry["split"])
    for line in filter(None, entry["files"].split("\n")):
        path, digest = line.rsplit(":", 1)
        full = job.raw / path
        if full.exists() and sha256(full) != digest:
            raise ChipError(
                full.stem, f"{path} is not the file that was downloaded (its SHA-256 differs): fetch it again"
            )
    size = job.params.chip_size
    params = job.params
    return read_chip(files.bands, files.label, params.bands, (size, size), nodata=params.nodata, offset=params.offset)


def _row(entry: dict[str, str], chip: Chip, job: _Job, row: int) -> dict[str, object]:
    valid = chip.label[chip.label != IGNORE_INDEX] if chip.label is not None else np.zeros(0, np.uint8)
    columns: dict[str, object] = {
        **{k: entry[k] for k in ("chip_id", "split", "location", "datetime", "scene", "source_sha256")},
        "shard": job.shard,
        "row": row,
        "labelled": bool(valid.size),
        "label_coverage_share": float(valid.mean()) if valid.size else float("nan"),
        "label_known_share": valid.size / job.params.chip_size**2,
        "nodata_share": float((chip.bands == job.params.nodata).any(axis=0).mean()),
        "flags": " ".join(_flags(chip, job.params)),
        "crs": chip.grid.crs,
        "transform": " ".join(map(repr, chip.grid.transform)),
    }
    for band, pixels in zip(job.params.bands, chip.bands, strict=True):
        columns |= band_statistics(pixels, band, job.params.nodata)
    return columns


def _flags(chip: Chip, params: DataParams) -> list[str]:
    """Flags of the pixels (`statistics.flags`), and `converted:<how>` or `suspected-offset` (`values`)."""
    found = flags(chip.bands, params.bands, params.nodata).split()
    if chip.conversion:
        found.append(f"{CONVERTED}{chip.conversion}")
    elif suspected_offset(chip.bands, params.nodata):
        found.append(SUSPECTED)
    return found


def _report(index: pd.DataFrame) -> None:
    """Log conversions and lost offsets of all chips, also of those in kept shards."""
    by_chip = {chip: found.split() for chip, found in zip(index["chip_id"], index["flags"], strict=True)}
    report(
        {c: flag.removeprefix(CONVERTED) for c, f in by_chip.items() for flag in f if flag.startswith(CONVERTED)},
        [chip for chip, found in by_chip.items() if SUSPECTED in found],
    )


def _tolerate(quarantined: pd.DataFrame, total: int, params: DataParams) -> None:
    share = quarantined["chip_id"].nunique() / max(total, 1)
    if share > params.max_quarantined:
        shown = [f"  {r.chip_id} {r.band}: {r.reason}" for r in quarantined.head(20).itertuples()]
        raise PackError(
            f"{quarantined['chip_id'].nunique()} of {total} chips cannot be used, {share:.1%}; "
            f"data.max_quarantined allows {params.max_quarantined:.1%}:\n" + "\n".join(shown)
        )


def _refuse_255_masks(index: pd.DataFrame) -> None:
    labelled = index[index["label_known_share"] > 0]
    some_unknown = int((labelled["label_known_share"] < 1).sum())
    if some_unknown and not (labelled["label_coverage_share"] > 0).any():
        raise PackError(
            f"no label holds a 1, and {some_unknown} hold 255, which means unknown: these look like 0/255 masks; "
            "write cloud as 1"
        )


def _remove_other_shards(out: Path, shards: set[int]) -> None:
    for path in out.iterdir():
        if (match := SHARD_FILE.fullmatch(path.name)) and int(match[1]) not in shards:
            path.unlink()
