"""Masks on disk: chips of a folder in, single-band GeoTIFFs out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import groupby, islice
from pathlib import Path

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from tqdm import tqdm

from cloudcover.data import ownership
from cloudcover.data.chips import IGNORE_INDEX, Chip, image_size, read_chip
from cloudcover.data.geotiff import write_geotiff
from cloudcover.data.statistics import exact_percentiles
from cloudcover.data.values import report, suspected_offset
from cloudcover.masks.postprocess import NOTHING, Postprocess
from cloudcover.predict.predictor import Predictor
from cloudcover.runtime.prefetch import prefetch
from cloudcover.runtime.text import listed

READERS = 2
"""Threads that read a batch each: GDAL decodes without Python's lock."""


def write_mask(path: Path, mask: NDArray[np.uint8], crs: str, transform: Sequence[float]) -> None:
    """Writes a mask as a compressed single-band uint8 GeoTIFF with nodata 255, atomically.

    Args:
        path: the file.
        mask: H x W uint8 of {0, 1, 255}.
        crs: CRS as text, or empty.
        transform: six numbers of the affine transform.
    """
    profile = {
        "nodata": IGNORE_INDEX,
        "compress": "deflate",
        "crs": crs or None,
        "transform": Affine(*transform),
    }
    write_geotiff(path, mask, profile)


def chip_percentiles(chips: NDArray[np.uint16], nodata: int) -> NDArray[np.float32]:
    """2nd and 98th percentile of each band, nodata left out: N x B x 2 float32 [DN]; 0 where a band has no data."""
    percentiles = np.zeros((*chips.shape[:2], 2), np.float32)
    for i, chip in enumerate(chips):
        for j, pixels in enumerate(chip):
            valid = pixels[pixels != nodata]
            if valid.size:
                percentiles[i, j] = exact_percentiles(valid, (2, 98))
    return percentiles


def mask_of(
    probabilities: NDArray[np.float32],
    chips: NDArray[np.uint16],
    threshold: float,
    nodata: int,
    postprocess: Postprocess = NOTHING,
) -> NDArray[np.uint8]:
    """1 above the threshold, post-processed, 0 elsewhere, 255 where any band has no data: N x H x W uint8."""
    masks = postprocess.masks(probabilities, threshold).astype(np.uint8)
    masks[(chips == nodata).any(axis=1)] = IGNORE_INDEX
    return masks


def find_chips(paths: Sequence[Path], bands: list[str]) -> list[Path]:
    """Chip folders among `paths`: a path is one itself, or a folder of chip folders at any depth.

    Raises:
        FileNotFoundError: a path does not exist or holds no chip.
    """
    found: list[Path] = []
    for path in paths:
        below = sorted({p.parent for p in path.rglob(f"{bands[0]}.tif")})
        if not below:
            raise FileNotFoundError(f"{path} holds no chip: expected folders with {bands[0]}.tif and so on")
        found += below
    return found


def predict_chips(predictor: Predictor, chips: Sequence[Path], out: Path, offset: int = 0) -> list[Path]:
    """Writes the mask of each chip folder as `out/<chip>.tif`.

    Threads read the next batches and write the last masks while the network computes. A batch holds chips of one size
    that follow each other, as many pixels as `predictor.batch` chips of the training's size.

    Args:
        predictor: the models; bands, scale and threshold are theirs.
        chips: folders with one GeoTIFF per band, any height and width.
        out: folder of the masks.
        offset: what was added to the DN of files without an offset of their own, such as 1000 [DN].

    Returns:
        The written paths.

    Raises:
        ChipError: a chip cannot be used.
        ValueError: two chips have the same name.
        FolderError: a mask would overwrite a file of `out` that is no earlier mask, such as a band or a label.
    """
    names = [c.name for c in chips]
    if twice := sorted(name for name, number in Counter(names).items() if number > 1):
        raise ValueError(f"several chips are called {listed(twice)}: their masks would overwrite each other")
    card = predictor.card
    _reserve(chips, card.bands, out)
    written: list[Path] = []
    conversions: dict[str, str] = {}
    suspects: list[str] = []
    with (
        ThreadPoolExecutor(READERS, thread_name_prefix="read") as readers,
        ThreadPoolExecutor(1, thread_name_prefix="write") as writer,
        tqdm(total=len(chips), desc="predict", unit="chip", disable=None) as bar,
    ):
        batches = _batches(chips, card.bands[0], predictor.batch * card.chip_size**2)
        read = prefetch(readers, partial(_read, bands=card.bands, nodata=card.nodata, offset=offset), batches, READERS)
        masks = (result for batch in read for result in _masks(predictor, batch))
        write = partial(_write, out=out, nodata=card.nodata)
        for path, conversion, suspected in prefetch(writer, write, masks, predictor.batch):
            written.append(path)
            conversions[path.stem] = conversion
            if suspected:
                suspects.append(path.stem)
            bar.update()
    report(conversions, suspects)
    return written


def _reserve(chips: Sequence[Path], bands: list[str], out: Path) -> None:
    """Records the masks as this program's, unless one of them would overwrite a file of somebody else or a band."""
    masks = {f"{chip.name}.tif" for chip in chips}
    read = {(chip / f"{band}.tif").resolve() for chip in chips for band in bands}
    if overwritten := sorted(mask for mask in masks if (out / mask).resolve() in read):
        raise ownership.FolderError(
            f"{out / overwritten[0]} is a band of a chip and would be overwritten: choose another --out"
        )
    ownership.reserve(out, masks)


def _batches(chips: Sequence[Path], band: str, pixels: int) -> Iterator[list[Path]]:
    """Runs of chips of one size, no more than make up `pixels` together, at least one."""
    sized = ((folder, image_size(folder / f"{band}.tif", band)) for folder in chips)
    for (height, width), run in groupby(sized, lambda chip: chip[1]):
        folders = (folder for folder, _ in run)
        while batch := list(islice(folders, max(1, pixels // (height * width)))):
            yield batch


def _read(folders: list[Path], bands: list[str], nodata: int, offset: int) -> list[tuple[str, Chip]]:
    """The chips of a batch by their names, all of the size of the first."""
    size = image_size(folders[0] / f"{bands[0]}.tif", bands[0])
    return [(folder.name, read_chip(folder, None, bands, size, nodata=nodata, offset=offset)) for folder in folders]


def _masks(predictor: Predictor, batch: list[tuple[str, Chip]]) -> Iterator[tuple[str, Chip, NDArray[np.uint8]]]:
    """The chips of a batch with their masks; the encoders need sizes that are multiples of 32."""
    pixels = np.stack([chip.bands for _, chip in batch])
    nodata = predictor.card.nodata
    height, width = pixels.shape[2:]
    padding = ((0, 0), (0, 0), (0, -height % 32), (0, -width % 32))
    padded = np.pad(pixels, padding, constant_values=nodata) if height % 32 or width % 32 else pixels
    percentiles = np.zeros((*pixels.shape[:2], 2), np.float32)
    if predictor.normalize.needs_percentiles:
        percentiles = chip_percentiles(pixels, nodata)
    probabilities = predictor.probabilities(padded, percentiles)[:, :height, :width]
    masks = mask_of(probabilities, pixels, predictor.threshold, nodata, predictor.postprocess)
    for (name, chip), mask in zip(batch, masks, strict=True):
        yield name, chip, mask


def _write(result: tuple[str, Chip, NDArray[np.uint8]], out: Path, nodata: int) -> tuple[Path, str, bool]:
    """Write a mask and return its path, how the chip was converted, and whether its offset seems to be lost."""
    name, chip, mask = result
    path = out / f"{name}.tif"
    write_mask(path, mask, chip.grid.crs, chip.grid.transform)
    return path, chip.conversion, not chip.conversion and suspected_offset(chip.bands, nodata)
