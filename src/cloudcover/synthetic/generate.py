"""The synthetic source: Sentinel-2-like chips with human-like labels, some of them wrong, and their true masks."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from cloudcover.config.sections import DataParams, SyntheticParams
from cloudcover.data import ownership, tables
from cloudcover.data.chips import IGNORE_INDEX
from cloudcover.data.label_errors import SCENE_FAILED
from cloudcover.data.layout import NAMES, SPLITS, remove_empty_folders
from cloudcover.masks.overlap import iou
from cloudcover.runtime.files import derive_seed, sha256
from cloudcover.runtime.workers import exit_with_parent
from cloudcover.synthetic import labels, scene, sites
from cloudcover.synthetic.land import BANDS
from cloudcover.synthetic.limits import refuse_impossible
from cloudcover.synthetic.write import write_tiff

# Wrong labels cluster in some scenes: in the real set, the 10th percentile of their share is 1 % per scene, the 90th
# 20 %.
ERROR_CLUSTERING = 1.2


@dataclass(frozen=True)
class _Task:
    """A chip to generate: its place, and whether it gets a label, a wrong one, or one of another image."""

    chip_id: str
    scene: int
    position: int
    labelled: bool
    spoilt: bool
    failed: bool


def generate(
    params: SyntheticParams,
    data: DataParams,
    seed: int,
    raw: Path,
    truth: Path,
    workers: int = 1,
    progress: bool | None = None,
) -> set[Path]:
    """Generate a synthetic set in the challenge's layout.

    The pixels of a chip depend only on (seed, scene, position in the scene, locations, variety, chip size), not on the
    other chips, their order or the number of workers. The choice of wrong and missing labels depends on the whole set,
    so that their shares match `params` exactly, up to rounding.

    Args:
        params: Numbers and shares.
        data: Bands and chip size; nodata is written into the files' headers.
        seed: Random seed of the set.
        raw: Output folder for `train_features/<chip_id>/<band>.tif` (uint16, DN = reflectance x 10,000),
            `train_labels/<chip_id>.tif` (uint8, 1 = cloud), `train_metadata.csv`, and, for chips without label,
            `test_features/` with `test_metadata.csv`.
        truth: Output folder for `masks/<chip_id>.tif` and `masks.csv` (`tables.TRUTH`).
        workers: Number of processes.
        progress: Whether to show a progress bar; None: only if standard error is a terminal.

    Returns:
        The files of the set, relative to `raw`. Other files of an earlier set are removed.

    Raises:
        ValueError: `data.bands` contains a band that the source cannot make, or this machine has no room for the set.
        FolderError: The program would overwrite a file that it did not create.
    """
    unknown = [band for band in data.bands if band not in BANDS]
    if unknown:
        raise ValueError(f"the synthetic source generates the bands {list(BANDS)}, not {unknown}; change data.bands")
    refuse_impossible(params, data, raw, workers)
    ownership.claim(raw)
    ownership.claim(truth)
    tasks = _plan(params, seed)
    files = _files(tasks, data.bands)
    masks = [f"masks/{task.chip_id}.tif" for task in tasks]
    ownership.reserve(raw, files)
    ownership.reserve(truth, masks)
    for task in tasks:
        (raw / _features(task)).mkdir(parents=True, exist_ok=True)
    (raw / "train_labels").mkdir(parents=True, exist_ok=True)
    (truth / "masks").mkdir(parents=True, exist_ok=True)

    make = partial(_make, params, data, seed, raw, truth)
    hide = not (sys.stderr.isatty() if progress is None else progress)
    rows = list(tqdm(_map(make, tasks, workers), total=len(tasks), desc="synthetic chips", unit="chip", disable=hide))

    for split in SPLITS:
        chips = [t for t in tasks if t.labelled == (split == "train")]
        frame = pd.DataFrame(
            [_metadata(t, _scene(params, seed, t.scene)) for t in chips], columns=list(tables.METADATA.columns)
        )
        tables.METADATA.write(frame, raw / f"{split}_metadata.csv")
    tables.TRUTH.write(pd.DataFrame(rows, columns=list(tables.TRUTH.columns)), truth / "masks.csv")
    ownership.prune(raw, files, NAMES)
    ownership.prune(truth, masks, ["masks"])
    remove_empty_folders(raw)
    return {Path(file) for file in files}


def _files(tasks: list[_Task], bands: list[str]) -> list[str]:
    """List all files of the set, relative to its folder."""
    images = [f"{_features(task)}/{band}.tif" for task in tasks for band in bands]
    masks = [f"train_labels/{task.chip_id}.tif" for task in tasks if task.labelled]
    return [*images, *masks, *(f"{split}_metadata.csv" for split in SPLITS)]


def _plan(params: SyntheticParams, seed: int) -> list[_Task]:
    places = [
        (number, position)
        for number, count in enumerate(sites.chip_counts(seed, params.scenes, params.chips))
        for position in range(count)
    ]
    without = _choose(places, round(params.unlabelled * len(places)), seed, "unlabelled", 0)
    labelled = [place for place in places if place not in without]
    scenes = [(number, 0) for number in range(params.scenes)]
    failed = {number for number, _ in _choose(scenes, round(params.failed_scenes * params.scenes), seed, "failed", 0)}
    others = [place for place in labelled if place[0] not in failed]
    wrong = _choose(others, round(params.label_errors * len(others)), seed, "error", ERROR_CLUSTERING)
    return [_Task(f"s{p[0]:03d}c{p[1]:04d}", *p, p not in without, p in wrong, p[0] in failed) for p in places]


def _choose(
    places: list[tuple[int, int]], number: int, seed: int, name: str, clustering: float
) -> set[tuple[int, int]]:
    """Choose chips at random, more from some scenes than from others.

    This is weighted sampling without replacement: the chips with the shortest exponential waiting times are chosen
    (Efraimidis and Spirakis 2006, doi 10.1016/j.ipl.2005.11.003). The time of a chip does not depend on other chips.

    Args:
        places: Scene and position of each chip.
        number: Number of chips to choose.
        seed: Random seed of the set.
        name: Name of the choice, which makes it independent of other choices.
        clustering: Standard deviation of the logarithm of the scenes' weights; 0: equal weights.
    """

    def waiting(place: tuple[int, int]) -> float:
        weight = np.random.default_rng(derive_seed(seed, name, "scene", place[0])).lognormal(0, clustering)
        return float(np.random.default_rng(derive_seed(seed, name, *place)).exponential(1 / weight))

    return set(sorted(places, key=waiting)[:number])


def _map(make: Any, tasks: list[_Task], workers: int) -> Iterator[dict[str, Any]]:
    """Make all chips; return their rows in the order of the tasks."""
    if workers <= 1:
        yield from map(make, tasks)
        return
    # Forked workers do not re-import the caller's main module, which would fail in a Snakemake script.
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
    with ProcessPoolExecutor(workers, multiprocessing.get_context(method), exit_with_parent) as pool:
        yield from pool.map(make, tasks, chunksize=8)


def _features(task: _Task) -> str:
    return f"{'train' if task.labelled else 'test'}_features/{task.chip_id}"


def _scene(params: SyntheticParams, seed: int, number: int) -> sites.Scene:
    return sites.scene(seed, number, params.locations, sites.Variety.of(params))


def _make(params: SyntheticParams, data: DataParams, seed: int, raw: Path, truth: Path, task: _Task) -> dict[str, Any]:
    """Make and write one chip; return its row of the truth table."""
    of = _scene(params, seed, task.scene)
    size = data.chip_size
    chip = scene.render(seed, of, task.position, size)
    for band in data.bands:
        write_tiff(raw / _features(task) / f"{band}.tif", chip.bands[BANDS.index(band)], of, task.position, data.nodata)
    error, agreement = "", float("nan")
    if task.labelled:
        rng = np.random.default_rng(derive_seed(seed, "label", task.scene, task.position))
        label = labels.human(chip, rng)
        if task.failed:
            foreign = _scene(
                params, seed, params.scenes + task.scene
            )  # a sky that no other label or chip of the set has
            label = labels.human(replace(chip, opacity=scene.veil(seed, foreign, task.position, size)), rng)
            error = SCENE_FAILED if labels.is_wrong(label, chip.mask) else ""
        elif task.spoilt:
            label, error = labels.spoil(label, chip, lambda: scene.true_mask(seed, of, task.position + 1, size), rng)
        agreement = float(iou(label, chip.mask))
        write_tiff(
            raw / "train_labels" / f"{task.chip_id}.tif", label.astype(np.uint8), of, task.position, IGNORE_INDEX
        )
    path = f"masks/{task.chip_id}.tif"
    write_tiff(truth / path, chip.mask.astype(np.uint8), of, task.position, IGNORE_INDEX)
    return {
        "chip_id": task.chip_id,
        "path": path,
        "sha256": sha256(truth / path),
        "error": error,
        "label_iou": agreement,
    }


def _metadata(task: _Task, of: sites.Scene) -> dict[str, str]:
    return {
        "chip_id": task.chip_id,
        "location": of.site.name,
        "datetime": of.time.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "cloudpath": f"synthetic://{_features(task)}",
    }
