"""Masks on disk, from images of any size and kind to GeoTIFFs, for `cloudcover predict` and the library."""

from __future__ import annotations

import logging
import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image as Picture
from rasterio.errors import RasterioError
from tqdm import tqdm

from cloudcover.augment.tta import PolicyError
from cloudcover.data import ownership
from cloudcover.data.chips import IGNORE_INDEX, ChipError, read_mask
from cloudcover.data.colours import true_bands
from cloudcover.data.offsets import Evidence, suspected_offset, warn_of_offsets
from cloudcover.data.values import report_conversions
from cloudcover.masks.codec import encode_soft_labels
from cloudcover.masks.decision import decide
from cloudcover.predict.chips import predict_chips
from cloudcover.predict.files import Note, Spec
from cloudcover.predict.metres import GridError
from cloudcover.predict.outputs import (
    MODEL,
    PREVIEWS,
    PROBABILITIES,
    RESOLUTION,
    SOFTWARE,
    Outputs,
    Product,
    option_tags,
    tags_of,
)
from cloudcover.predict.predictor import NotFiniteError, Predictor
from cloudcover.predict.preview import Thumbnail
from cloudcover.predict.resolution import Resolution, scale_of, seen_metres
from cloudcover.predict.scenes import Probabilities, predict_scene
from cloudcover.predict.summary import Summary
from cloudcover.rasters.find import Found
from cloudcover.rasters.image import Image
from cloudcover.rasters.stack import grid_of
from cloudcover.runtime.text import NAMED, listed

CACHE_MIB = 256
"""GDAL's cache for tiles, which by default grows with the machine's memory [MiB]."""
ROWS = 512
"""Number of rows encoded at a time."""
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of TIFF files."""
OTHER, DAMAGED = "of other models or options", "with damaged files"
"""Reasons to make a mask again."""

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
        skip_existing: Skip images that already have all their files from an earlier run with the same models and
            options. Damaged files are made again. A changed image, or another offset or scale, is not noticed.
        summary: Table to add the shares of each mask to, including masks of an earlier run.

    Returns:
        The paths of the masks, including those of an earlier run.

    Raises:
        UnusableImagesError: Some images cannot be used; raised after all others are finished.
        NotFiniteError: A model returns values that are not finite.
        DeviceMemoryError: The GPU's memory is too small for a batch.
        ValueError: Two images have the same name.
        FolderError: The program would overwrite a file that it did not create, such as a band, a label, or a file that
            has replaced a mask; or the summary has the name of another file of this run.
        OSError: A file cannot be written.
    """
    _reserve(images, outputs, summary)
    outputs = replace(outputs, tags=tags_of(predictor, outputs.buffer_m, outputs.min_area_m2))
    todo = _unfinished(images, outputs, resolution) if skip_existing else images
    for image in todo:
        _refuse_replaced(image, outputs)
    if summary:
        for name in sorted({image.name for image in images} - {image.name for image in todo}):
            mask, grid = read_mask(outputs.folder / f"{name}.tif", "mask")
            summary.add(name, grid, mask)
    with rasterio.Env(GDAL_CACHEMAX=CACHE_MIB):
        notes = _predict(predictor, todo, outputs, resolution, summary)
    if summary:
        summary.write()
    report_conversions({name: note.conversion for name, note in notes.items()})
    plain = {name: note for name, note in notes.items() if not (note.problem or note.conversion)}
    warn_of_offsets(Evidence([name] * bool(note.near), note.near, 0, 1) for name, note in plain.items())
    if unusable := [f"{name}: {note.problem}" for name, note in notes.items() if note.problem]:
        others = f" (those of the others are in {outputs.folder})" if len(unusable) < len(images) else ""
        raise UnusableImagesError(
            f"{len(unusable)} of {len(images)} images have no mask{others}:\n  " + "\n  ".join(unusable)
        )
    return [outputs.folder / f"{image.name}.tif" for image in images]


def _reserve(images: Sequence[Found], outputs: Outputs, summary: Summary | None = None) -> None:
    """Record the files as the program's, unless one would overwrite another, a band, or somebody else's file."""
    if twice := sorted(name for name, number in Counter(map(_spelled, images)).items() if number > 1):
        first, second = [f"{image.place} {image.part}".strip() for image in images if _spelled(image) == twice[0]][:2]
        raise ValueError(
            f"several images are called {listed(twice)} ({first} and {second}): their masks would overwrite each "
            "other, on some disks also if only the case differs"
        )
    out = outputs.folder.resolve()
    for image in images:
        if image.kind == "chip" and Path(image.place).resolve() == out and image.name in image.request.bands:
            raise ownership.FolderError(
                f"{outputs.folder / image.name}.tif is a band of a chip and would be overwritten: choose another --out"
            )
    files = {file for image in images for file in outputs.files(image.name)}
    taken = {".", ownership.RECORD, PROBABILITIES, PREVIEWS, *files}
    if summary and summary.path.is_relative_to(out) and summary.path.relative_to(out).as_posix() in taken:
        raise ownership.FolderError(f"{summary.path} is another output of this run: choose another --summary")
    ownership.reserve(outputs.folder, files)


def _spelled(image: Found) -> str:
    """Return the name of an image as disks compare it that ignore case and the form of accents."""
    return unicodedata.normalize("NFC", image.name).casefold()


def _refuse_replaced(image: Found, outputs: Outputs) -> None:
    """Refuse to overwrite files of an earlier run that are read-only, or that another program has written since."""
    for path in (outputs.folder / file for file in outputs.files(image.name)):
        if not path.is_file():
            continue
        if not os.access(path, os.W_OK):
            raise ownership.FolderError(f"{path} is read-only: `chmod u+w` it, or choose another --out")
        if path.suffix == ".tif" and not _made_here(path):
            raise ownership.FolderError(
                f"{path} lacks the tags of the mask that cloudcover has written there, and would be overwritten: "
                "move it, or choose another --out"
            )


def _made_here(path: Path) -> bool:
    """Return whether a GeoTIFF has tags of this program, or is empty or cannot be opened, as a damaged one."""
    with path.open("rb") as file:
        if (start := file.read(4)) not in TIFF:
            return not start
    try:
        with rasterio.open(path, driver="GTiff") as source:
            tags = source.tags()
        return MODEL in tags or tags.get(SOFTWARE, "").startswith("cloudcover ")
    except RasterioError:
        return True


def _unfinished(images: Sequence[Found], outputs: Outputs, resolution: Resolution) -> list[Found]:
    """Return the images without all their files, or with damaged files or those of other models or options."""
    complete = {image.name for image in images if _complete(image, outputs)}
    again: dict[str, list[str]] = {}
    for name in sorted(complete):
        if problem := _problem(name, outputs, resolution):
            again.setdefault(problem, []).append(name)
    for problem, names in again.items():
        log.info("%d masks %s are made again: %s", len(names), problem, listed(names, NAMED))
    done = complete - {name for names in again.values() for name in names}
    log.info("%d of %d images already have their masks", len(done), len(images))
    return [image for image in images if image.name not in done]


def _complete(image: Found, outputs: Outputs) -> bool:
    return all((outputs.folder / file).is_file() for file in outputs.files(image.name))


def _problem(name: str, outputs: Outputs, resolution: Resolution) -> str:
    """Describe why the files of an image are not those that would be written now; empty if they are.

    They must be readable to the end, and the GeoTIFFs must have the tags that they would be given now.
    """
    try:
        for file in outputs.files(name):
            if file.endswith(".png"):
                with Picture.open(outputs.folder / file) as picture:
                    picture.load()
                continue
            with rasterio.open(outputs.folder / file, driver="GTiff") as source:
                tags, grid = source.tags(), grid_of(source)
                source.read(1)
            seen_m = seen_metres(grid, scale_of(grid, resolution))
            expected = option_tags({**outputs.tags, **({RESOLUTION: f"{seen_m:g}"} if seen_m else {})})
            if option_tags(tags) != expected:
                return OTHER if MODEL in tags else DAMAGED
    except GridError:
        return OTHER
    except (RasterioError, OSError, SyntaxError):  # what Pillow raises for a damaged PNG
        return DAMAGED
    return ""


def _predict(
    predictor: Predictor,
    images: Sequence[Found],
    outputs: Outputs,
    resolution: Resolution,
    summary: Summary | None,
) -> dict[str, Note]:
    """Predict and write all images: first chips in batches, then larger and other images."""
    batched = [image for image in images if _batched(image, resolution)]
    single = [image for image in images if not _batched(image, resolution)]
    notes: dict[str, Note] = {}
    if batched:
        card, offset = predictor.card, batched[0].request.offset or 0
        spec = Spec(card.bands, card.nodata, offset, predictor.normalize.needs_percentiles)
        chips = {Path(image.place): image.name for image in batched}
        notes, larger = predict_chips(predictor, chips, spec, outputs, summary)
        too_large = set(larger)
        single += [image for image in batched if Path(image.place) in too_large]
    for image in tqdm(single, desc="predict", unit="image", disable=None if len(single) > 1 else True):
        notes[image.name] = _predict_one(image, predictor, outputs, resolution, summary)
    return notes


def _batched(image: Found, resolution: Resolution) -> bool:
    """Return whether an image is a chip to be read as it is."""
    return image.kind == "chip" and resolution is None and image.request.scale is None


def _predict_one(
    found: Found, predictor: Predictor, outputs: Outputs, resolution: Resolution, summary: Summary | None
) -> Note:
    """Predict and write an image; a failure is recorded as the note's problem."""
    try:
        with found.open() as image:
            product, near = _product(image, predictor, outputs, resolution)
    except NotFiniteError as error:
        raise NotFiniteError(error.row, f"image {found.name}: {error}") from None
    except (ChipError, PolicyError, GridError) as error:
        return Note(problem=str(error))
    outputs.write(product)
    if summary:
        summary.add(product.name, product.grid, product.mask)
    return Note(product.grid.crs, product.grid.transform, product.conversion, near)


def _product(image: Image, predictor: Predictor, outputs: Outputs, resolution: Resolution) -> tuple[Product, int]:
    """Predict an image; return its outputs, and its number of windows if all have a `suspected_offset`, otherwise 0."""
    grid, card = image.grid, predictor.card
    if overwritten := {(outputs.folder / file).resolve() for file in outputs.files(image.name)} & {
        path.resolve() for path in image.files
    }:
        raise ChipError(
            "mask", f"would overwrite {min(overwritten)}, which the image is read from: choose another --out"
        )
    outputs.check(grid)
    scale = scale_of(grid, resolution)
    seen_m = seen_metres(grid, scale)
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
    product = Product(image.name, grid, mask, codes, thumbnail, image.conversion, seen_m)
    return product, len(suspicions) if all(suspicions) else 0


def _codes(found: Probabilities) -> NDArray[np.uint8]:
    """Encode probabilities as `encode_soft_labels`, in row blocks, so that memory holds one copy of them."""
    codes = np.full(found.values.shape, IGNORE_INDEX, np.uint8)
    for start in range(0, len(codes), ROWS):
        part = slice(start, start + ROWS)
        np.copyto(codes[part], encode_soft_labels(found.values[part]), where=~found.empty[part])
    return codes
