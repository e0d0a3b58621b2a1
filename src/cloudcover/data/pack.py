"""Packing of thousands of GeoTIFFs into a few shards that are read through memory maps.

A chip's shard depends only on its id, so adding or removing a chip changes one shard, and DVC uploads no other. The
shard number is the first bits of the id's SHA-256, as many as keep the mean number of chips at `chips_per_shard` or
below.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from cloudcover.config.sections import DataParams
from cloudcover.data import shards, tables
from cloudcover.data.chips import DECLARED, IGNORE_INDEX, UNDECLARED, Chip, ChipError, read_chip, stem_of
from cloudcover.data.layout import differences, orphans, read_metadata
from cloudcover.data.offsets import DARK, Evidence, suspected_offset, warn_of_offsets
from cloudcover.data.statistics import band_statistics, flags
from cloudcover.data.strays import labels_below, stray_labels
from cloudcover.data.values import report_conversions
from cloudcover.runtime.files import fingerprint, remove_leftovers, sha256
from cloudcover.runtime.text import listed, named
from cloudcover.runtime.workers import exit_with_parent

CONVERTED, SUSPECTED = "converted:", "suspected-offset"

log = logging.getLogger(__name__)


class PackError(ValueError):
    """Chips that cannot be packed; the message lists the first of them."""


@dataclass(frozen=True)
class _Job:
    shard: int
    chips: list[dict[str, str]]
    raw: Path
    out: Path
    params: DataParams


def shard_of(chip_id: str, shards: int) -> int:
    """Return the shard of a chip among `shards`, a power of two."""
    return int.from_bytes(hashlib.sha256(chip_id.encode()).digest()[:4], "big") & (shards - 1)


def pack(raw: Path, out: Path, quarantine: Path, params: DataParams, workers: int = 1) -> None:
    """Pack the chips below `raw` into the store `out`.

    Shards with unchanged sources are kept. Memory use is one shard per worker.

    Args:
        raw: Folder in the challenge's layout, with `files.csv`.
        out: Output folder for `index.parquet` (`tables.INDEX` and band statistics), `chips-*.npy` (N x B x H x W
            uint16) and `labels-*.npy` (N x H x W uint8, 255 where unknown).
        quarantine: Output table of unusable chips, by `tables.QUARANTINE`.
        params: Bands, sizes, nodata value, offset and tolerance.
        workers: Number of processes.

    Raises:
        PackError: More than `max_quarantined` of the chips are unusable, no chip is left, or labels may be 0/255 masks.
        TableError: The metadata or the manifest violates its schema.
    """
    chips = read_metadata(raw)
    manifest = tables.FILES.read(raw / "files.csv")
    unusable = _unusable(raw, chips, manifest, params)
    usable = chips[~chips["chip_id"].isin({row["chip_id"] for row in unusable})]
    remove_leftovers(out)
    jobs = _plan(usable, manifest, raw, out, params)
    (out / "index.parquet").unlink(missing_ok=True)  # it would not fit a mixture of old and new shards
    index, more = _run(jobs, workers)
    quarantined = pd.DataFrame(unusable + more, columns=list(tables.QUARANTINE.columns))
    _tolerate(quarantined, total=len({*chips["chip_id"], *quarantined["chip_id"]}), params=params)
    if index.empty:
        raise PackError("no chip is left to pack")
    _refuse_255_masks(index)
    tables.QUARANTINE.write(quarantined, quarantine)
    shards.remove_others(out, {job.shard for job in jobs})
    _report(index)
    tables.INDEX.write(index.sort_values("chip_id"), out / "index.parquet")


def _unusable(raw: Path, chips: pd.DataFrame, manifest: pd.DataFrame, params: DataParams) -> list[dict[str, str]]:
    """List rows of the quarantine from names and lengths alone: disagreements of metadata, manifest and folders."""
    orphaned = orphans(raw, chips)
    rows = [
        {"chip_id": chip, "band": "", "reason": reason}
        for which, reason in (
            ("rows without chips", "listed in the metadata, but there is no folder of bands"),
            ("chips without rows", "has a folder of bands, but no row in the metadata"),
        )
        for chip in orphaned[which]
    ]
    done = {row["chip_id"] for row in rows}
    rows += [
        {"chip_id": path.rsplit("/", 1)[1], "band": "label", "reason": f"{path} {reason}"}
        for path, reason in stray_labels(labels_below(raw), chips).items()
    ]
    known = set(chips["chip_id"])
    for path, problem in sorted(differences(raw, manifest).items()):
        chip, band = _part_of(path)
        if not chip:
            log.warning("%s %s", raw / path, problem)
        if chip in known - done and band in ("label", *params.bands):
            reason = f"{path} {problem}: `cloudcover verify` lists such files, `cloudcover download` fetches them again"
            rows.append({"chip_id": chip, "band": band, "reason": reason})
    return rows


def _part_of(path: str) -> tuple[str, str]:
    """Return chip and band (`label` for a label) of a path of the layout; empty texts for a table."""
    parts = path.split("/")
    stem = stem_of(parts[-1]) or ""
    return (parts[1], stem) if len(parts) == 3 else (stem, "label" if stem else "")


def _plan(chips: pd.DataFrame, manifest: pd.DataFrame, raw: Path, out: Path, params: DataParams) -> list[_Job]:
    number = 2 ** max(0, math.ceil(math.log2(len(chips) / params.chips_per_shard))) if len(chips) else 1
    by_chip: dict[str, list[str]] = {}
    for path, digest in manifest[["path", "sha256"]].itertuples(index=False):
        by_chip.setdefault(_part_of(path)[0], []).append(f"{path}:{digest}")
    planned: dict[int, list[dict[str, str]]] = {}
    for chip in chips.sort_values("chip_id").to_dict("records"):
        files = sorted(file for file in by_chip.get(chip["chip_id"], []) if file.startswith(f"{chip['split']}_"))
        digest = fingerprint([files, chip["location"], chip["datetime"], chip["split"]])
        planned.setdefault(shard_of(chip["chip_id"], number), []).append(
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
    """Pack one shard, or keep the existing one if its sources and the parameters are unchanged."""
    key = fingerprint(
        [
            [job.params.bands, job.params.chip_size, job.params.nodata, job.params.offset],
            [c["source_sha256"] for c in job.chips],
        ]
    )
    if (kept := shards.kept(job.out, job.shard, key)) is not None:
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
    arrays: shards.Arrays = {"chips": np.stack(chips), "labels": np.stack(labels)}
    shards.write(job.out, job.shard, frame, arrays, None if unusable else key)
    return frame, unusable


def _read(entry: dict[str, str], job: _Job) -> Chip:
    params, label = job.params, None
    for line in filter(None, entry["files"].split("\n")):
        path, digest = line.rsplit(":", 1)
        band = _part_of(path)[1]
        if band not in ("label", *params.bands):
            continue
        _refuse_changed(job.raw / path, band, digest)
        if band == "label" and label:
            raise ChipError(band, f"{label} and {path} have the same name: remove one of them")
        label = job.raw / path if band == "label" else label
    folder, size = job.raw / f"{entry['split']}_features" / entry["chip_id"], params.chip_size
    return read_chip(folder, label, params.bands, (size, size), nodata=params.nodata, offset=params.offset)


def _refuse_changed(path: Path, band: str, digest: str) -> None:
    try:
        found = sha256(path)
    except OSError as error:
        raise ChipError(band, f"{path} cannot be read: {error.strerror}") from None
    if found != digest:
        raise ChipError(band, f"{path} is not the file that was downloaded (its SHA-256 differs): fetch it again")


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
    """Return flags of the pixels (`statistics.flags`), the label (`Chip.doubt`) and the values (`_report`)."""
    found = flags(chip.bands, params.bands, params.nodata).split()
    if chip.doubt:
        found.append(chip.doubt)
    if chip.conversion:
        found.append(f"{CONVERTED}{chip.conversion}")
    elif suspected_offset(chip.bands, params.nodata):
        found.append(SUSPECTED)
    return found


def _report(index: pd.DataFrame) -> None:
    """Log conversions and lost offsets of all chips, also in shards that were kept."""
    by_chip = {chip: found.split() for chip, found in zip(index["chip_id"], index["flags"], strict=True)}
    conversions = {
        c: f.removeprefix(CONVERTED) for c, found in by_chip.items() for f in found if f.startswith(CONVERTED)
    }
    report_conversions(conversions)
    warn_of_offsets(_evidence(index[~index["chip_id"].isin(conversions)]))


def _evidence(index: pd.DataFrame) -> list[Evidence]:
    """Count the chips of each product; a chip of unknown time is a product of its own."""
    darkest = index.filter(regex="^p02_.*_dn$").min(axis=1)
    chips = index[["chip_id"]].assign(
        product=index["scene"].where(index["datetime"] != "", index["chip_id"]),
        near=index["flags"].str.contains(SUSPECTED),
        dark=(darkest < DARK) & ~index["flags"].str.contains("empty:"),
    )
    return [
        Evidence(of["chip_id"][of["near"]].tolist(), int(of["near"].sum()), int(of["dark"].sum()), len(of))
        for _, of in chips.groupby("product")
    ]


def _tolerate(quarantined: pd.DataFrame, total: int, params: DataParams) -> None:
    share = quarantined["chip_id"].nunique() / max(total, 1)
    if share > params.max_quarantined:
        lines = [f"{r.chip_id} {r.band}: {r.reason}" for r in quarantined.itertuples()]
        text = f"{quarantined['chip_id'].nunique()} of {total} chips cannot be used, {share:.1%}"
        raise PackError(named(f"{text}; data.max_quarantined allows {params.max_quarantined:.1%}", lines))


def _refuse_255_masks(index: pd.DataFrame) -> None:
    """Refuse a set in which some labels may be 0/255 masks, because their cloud would silently become unknown.

    A file's declaration of 255 as unknown is trusted only if labels with cloud contain 255 as well.
    """
    undeclared, declared = (
        index.loc[[flag in found.split() for found in index["flags"]], "chip_id"].tolist()
        for flag in (UNDECLARED, DECLARED)
    )
    cloudy = index[index["label_coverage_share"] > 0]
    unknown = (1 - cloudy["label_known_share"] - cloudy["nodata_share"] > 1e-9).any()
    if doubtful := undeclared if unknown else undeclared + declared:
        raise PackError(
            f"{len(doubtful)} labels hold 255, which means unknown, but no 1, and {len(cloudy)} labels hold a 1: "
            f"{listed(doubtful)} look like 0/255 masks; write cloud as 1. If 255 means unknown in them, declare it in "
            "the files (`gdal_edit.py -a_nodata 255 FILE`); a label with cloud must then hold 255, too. Or remove them"
        )
    if declared:
        log.warning(
            "%d labels contain 255 but no 1, interpreted as unknown and clear: %s", len(declared), listed(declared)
        )
