"""Masks on disk, from images of any size and kind to GeoTIFFs, for `cloudcover predict` and the library."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from tqdm import tqdm

from cloudcover.augment.tta import PolicyError
from cloudcover.data import ownership
from cloudcover.data.chips import IGNORE_INDEX, ChipError, read_mask
from cloudcover.data.colours import true_bands
from cloudcover.data.values import report, suspected_offset
from cloudcover.masks.codec import encode_soft_labels
from cloudcover.masks.decision import decide
from cloudcover.predict.chips import predict_chips
from cloudcover.predict.files import Note, Spec
from cloudcover.predict.metres import GridError, pixel_metres
from cloudcover.predict.outputs import Outputs, Product, tags_of
from cloudcover.predict.predictor import NotFiniteError, Predictor
from cloudcover.predict.preview import Thumbnail
from cloudcover.predict.resolution import Resolution, scale_of
from cloudcover.predict.scenes import Probabilities, predict_scene
from cloudcover.predict.summary import Summary
from cloudcover.rasters.find import Found
from cloudcover.rasters.image import Image
from cloudcover.runtime.text import listed

CACHE_MIB = 256
"""GDAL's cache for tiles, which by default grows with the machine's memory [MiB]."""
ROWS = 512
"""Number of rows encoded at a time."""

log = logging.getLogger(__name__)


class UnusableImagesError(ValueError):
    """Images without a mask; the message names them and the reasons. The masks of all others are written."""


def predict_images(
    predictor: Predictor,
    images: Sequence[Found],
    outputs: Outputs,
    *,
    resolution: Resolution = None,
    skip_existing: bool = False,
    summary: Summary | None = None,
) -> list[Path]:
    """Predict images and write their masks; an unusable image does not affect the others.

    Chips that fit into a window are predicted in batches, other images one by one.

    Args:
        predictor: The models, which determine bands, scale and threshold.
        images: Images to predict.
        outputs: Files to write; the tags are replaced.
        resolution: Pixel size that the network sees. Images with another one are resampled, and their masks are
            resampled back.
        skip_existing: Skip images that already have all their files from an earlier run.
        summary: Table to add the shares of each mask to, including masks of an earlier run.

    Returns:
        The paths of the masks, including those of an earlier run.

    Raises:
        UnusableImagesError: Some images cannot be used; raised after all others are finished.
        NotFiniteError: A model returns values that are not finite.
        DeviceMemoryError: The GPU's memory is too small for a batch.
        ValueError: Two images have the same name.
        FolderError: The program would overwrite a file that it did not create, such as a band or a label.
        OSError: A file cannot be written.
    """
    _reserve(images, outputs)
    outputs = replace(outputs, tags=tags_of(predictor, outputs.buffer_m, outputs.min_area_m2))
    todo = [image for image in images if not (skip_existing and _complete(image, outputs))]
    if skip_existing:
        log.info("%d of %d images already have their masks", len(images) - len(todo), len(images))
    if summary:
        for name in sorted({image.name for image in images} - {image.name for image in todo}):
            mask, grid = read_mask(outputs.folder / f"{name}.tif", "mask")
            summary.add(name, grid, mask)
    with rasterio.Env(GDAL_CACHEMAX=CACHE_MIB):
        notes = _predict(predictor, todo, outputs, resolution, summary)
    if summary:
        summary.write()
    report({name: note.conversion for name, note in notes.items()}, [n for n, note in notes.items() if note.suspected])
    if unusable := [f"{name}: {note.problem}" for name, note in notes.items() if note.problem]:
        raise UnusableImagesError(
            f"{len(unusable)} of {len(images)} images have no mask ({outputs.folder} holds those of the others):\n  "
            + "\n  ".join(unusable)
        )
    return [outputs.folder / f"{image.name}.tif" for image in images]


def _reserve(images: Sequence[Found], outputs: Outputs) -> None:
    """Record the files as the program's, unless one would overwrite another, a band, or somebody else's file."""
    if twice := sorted(name for name, number in Counter(image.name for image in images).items() if number > 1):
        raise ValueError(f"several images are called {listed(twice)}: their masks would overwrite each other")
    out = outputs.folder.resolve()
    for image in images:
        if image.kind == "chip" and Path(image.place).resolve() == out and image.name in image.request.bands:
            raise ownership.FolderError(
                f"{outputs.folder / image.name}.tif is a band of a chip and would be overwritten: choose another --out"
            )
    ownership.reserve(outputs.folder, {file for image in images for file in outputs.files(image.name)})


def _complete(image: Found, outputs: Outputs) -> bool:
    return all((outputs.folder / file).is_file() for file in outputs.files(image.name))


def _predict(
    predictor: Predictor,
    images: Sequence[Found],
    outputs: Outputs,
    resolution: Resolution,
    summary: Summary | None,
) -> dict[str, Note]:
    """Predict and write all images: first chips in batches, then larger and other images."""
    batched = [image for image in images if image.kind == "chip" and resolution is None]
    single = [image for image in images if image.kind != "chip" or resolution is not None]
    notes: dict[str, Note] = {}
    if batched:
        card, offset = predictor.card, batched[0].request.offset
        spec = Spec(card.bands, card.nodata, offset, predictor.normalize.needs_percentiles)
        chips = {Path(image.place): image.name for image in batched}
        notes, larger = predict_chips(predictor, chips, spec, outputs, summary)
        too_large = set(larger)
        single += [image for image in batched if Path(image.place) in too_large]
    for image in tqdm(single, desc="predict", unit="image", disable=None if len(single) > 1 else True):
        notes[image.name] = _predict_one(image, predictor, outputs, resolution, summary)
    return notes


def _predict_one(
    found: Found, predictor: Predictor, outputs: Outputs, resolution: Resolution, summary: Summary | None
) -> Note:
    """Predict and write an image; a failure is recorded as the note's problem."""
    try:
        with found.open() as image:
            product, suspected = _product(image, predictor, outputs, resolution)
    except NotFiniteError as error:
        raise NotFiniteError(error.row, f"image {found.name}: {error}") from None
    except (ChipError, PolicyError, GridError) as error:
        return Note(problem=str(error))
    outputs.write(product)
    if summary:
        summary.add(product.name, product.grid, product.mask)
    return Note(product.grid.crs, product.grid.transform, product.conversion, suspected)


def _product(image: Image, predictor: Predictor, outputs: Outputs, resolution: Resolution) -> tuple[Product, bool]:
    """Predict an image; return its outputs, and whether its offset seems to be lost (`values.suspected_offset`)."""
    grid, card = image.grid, predictor.card
    if overwritten := {(outputs.folder / file).resolve() for file in outputs.files(image.name)} & {
        path.resolve() for path in image.files
    }:
        raise ChipError(
            "mask", f"would overwrite {min(overwritten)}, which the image is read from: choose another --out"
        )
    outputs.check(grid)
    scale = scale_of(grid, resolution)
    seen_m = max(pixel_metres(grid)) / scale if scale != 1 else None
    if seen_m:
        log.info("%s: pixels of %g m are resampled to %g m for the model", image.name, seen_m * scale, seen_m)
    thumbnail = Thumbnail(grid.height, grid.width, true_bands(card.bands)) if outputs.preview else None
    suspicions: list[bool] = []

    def seen(row: int, dn: NDArray[np.uint16]) -> None:
        if image.doubtful and (dn != card.nodata).any():
            suspicions.append(suspected_offset(dn, card.nodata))
        if thumbnail:
            thumbnail.add(row, dn)

    found = predict_scene(image, predictor, scale, seen)
    codes = _codes(found) if outputs.probabilities else None
    mask = decide(found.values[np.newaxis], found.empty[np.newaxis], predictor.threshold, predictor.postprocess)[0]
    return Product(image.name, grid, mask, codes, thumbnail, image.conversion, seen_m), bool(suspicions) and all(
        suspicions
    )


def _codes(found: Probabilities) -> NDArray[np.uint8]:
    """Encode probabilities as `encode_soft_labels`, in row blocks, so that memory holds one copy of them."""
    codes = np.full(found.values.shape, IGNORE_INDEX, np.uint8)
    for start in range(0, len(codes), ROWS):
        part = slice(start, start + ROWS)
        np.copyto(codes[part], encode_soft_labels(found.values[part]), where=~found.empty[part])
    return codes
