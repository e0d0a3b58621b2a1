"""Output files of a predicted image: its mask and, on request, probabilities and a preview. No torch.

Processes that read and write chips import this module; importing torch would take longer than their work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.io import DatasetWriter

from cloudcover.data.chips import IGNORE_INDEX
from cloudcover.data.colours import CLEAR_COLOUR, CLOUD_COLOUR, UNKNOWN_COLOUR
from cloudcover.data.geotiff import write_geotiff
from cloudcover.data.grid import Grid
from cloudcover.masks.codec import SOFT_LABEL_STEPS
from cloudcover.predict.area import add_buffer, remove_small
from cloudcover.predict.metres import pixel_metres
from cloudcover.predict.preview import Thumbnail, write_png

if TYPE_CHECKING:
    from cloudcover.predict.predictor import Predictor

PROBABILITIES, PREVIEWS = "probabilities", "previews"
"""Subfolders of the folder of masks."""
COG_FROM = 512
"""Masks with a longer side become cloud-optimised (COG); up to this size, a COG has one tile and no overview."""
COLOURS = {0: CLEAR_COLOUR, 1: CLOUD_COLOUR, IGNORE_INDEX: UNKNOWN_COLOUR}
SOFTWARE, MODEL = "TIFFTAG_SOFTWARE", "CLOUDCOVER_MODEL"
"""Tags of a GeoTIFF for the version and the models."""
SCALE, RESOLUTION = "CLOUDCOVER_SCALE", "CLOUDCOVER_RESOLUTION_M"
"""Tags of a GeoTIFF for the conversion of the image's values, and the pixel size that the network saw."""
COG = {"driver": "COG", "blocksize": 512, "num_threads": "all_cpus"}


class Product(NamedTuple):
    """The results for an image.

    Attributes:
        name: Stem of its files.
        grid: Georeferencing of the image.
        mask: H x W uint8 of {0, 1, 255}.
        codes: Probabilities encoded by `encode_soft_labels`, H x W uint8; None if not requested.
        thumbnail: Picture for the preview; None if not requested.
        conversion: How the stored values became DN; empty if they are DN.
        resolution_m: Pixel size that the network saw, if it was not that of the image [m].
    """

    name: str
    grid: Grid
    mask: NDArray[np.uint8]
    codes: NDArray[np.uint8] | None = None
    thumbnail: Thumbnail | None = None
    conversion: str = ""
    resolution_m: float | None = None


@dataclass(frozen=True)
class Outputs:
    """The requested output files; can be pickled.

    Attributes:
        folder: Folder for the masks, with subfolders for the other files.
        probabilities: Whether to write probabilities.
        preview: Whether to write previews.
        buffer_m: Margin around clouds [m].
        min_area_m2: Smallest area of a cloud [m²].
        tags: Metadata of every GeoTIFF.
    """

    folder: Path
    probabilities: bool = False
    preview: bool = False
    buffer_m: float = 0.0
    min_area_m2: float = 0.0
    tags: Mapping[str, str] = field(default_factory=dict)

    def files(self, name: str) -> list[str]:
        """List the files of an image, relative to the folder; the first is the mask."""
        more = [f"{PROBABILITIES}/{name}.tif"] * self.probabilities + [f"{PREVIEWS}/{name}.png"] * self.preview
        return [f"{name}.tif", *more]

    def check(self, grid: Grid) -> None:
        """Refuse an image without a pixel size in metres, if that is needed (`GridError`)."""
        if self.buffer_m or self.min_area_m2:
            pixel_metres(grid)

    def write(self, product: Product) -> None:
        """Finish a mask in place and write the files of an image, the mask last.

        Raises:
            OSError: A file cannot be written.
        """
        name, grid, mask = product.name, product.grid, product.mask
        if self.min_area_m2:
            remove_small(mask, pixel_metres(grid), self.min_area_m2)
        if self.buffer_m:
            add_buffer(mask, pixel_metres(grid), self.buffer_m)
        tags = {**self.tags, SCALE: product.conversion or "none: values are reflectance x 10,000"}
        if product.resolution_m:
            tags[RESOLUTION] = f"{product.resolution_m:g}"
        if product.codes is not None:
            write_probabilities(self.folder / PROBABILITIES / f"{name}.tif", product.codes, grid, tags)
        if product.thumbnail is not None:
            write_png(self.folder / PREVIEWS / f"{name}.png", product.thumbnail.outlined(mask))
        write_mask(self.folder / f"{name}.tif", mask, grid.crs, grid.transform, tags)


def tags_of(predictor: Predictor, buffer_m: float, min_area_m2: float) -> dict[str, str]:
    """Return the tags of every GeoTIFF, which describe the models and how masks were made."""
    models = zip(predictor.folders, predictor.engines, strict=True)
    tags = {
        SOFTWARE: f"cloudcover {version('cloudcover')}",
        MODEL: ", ".join(f"{folder.name}@{engine.card.weights_sha256[:12]}" for folder, engine in models),
        "CLOUDCOVER_TTA": predictor.policy,
        "CLOUDCOVER_THRESHOLD": f"{predictor.threshold:g}",
    }
    metres = {"CLOUDCOVER_BUFFER_M": buffer_m, "CLOUDCOVER_MIN_AREA_M2": min_area_m2}
    return tags | {name: f"{value:g}" for name, value in metres.items() if value}


def option_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Return those of a GeoTIFF's tags that name its models and options, not the version or the image."""
    return {name: value for name, value in tags.items() if name.startswith("CLOUDCOVER_") and name != SCALE}


def write_mask(
    path: Path,
    mask: NDArray[np.uint8],
    crs: str,
    transform: Sequence[float],
    tags: Mapping[str, str] | None = None,
) -> None:
    """Write a mask as a compressed single-band uint8 GeoTIFF with nodata 255, atomically.

    If a side has more than `COG_FROM` pixels, it is a COG with overviews and colours.

    Args:
        path: File to write.
        mask: H x W uint8 of {0, 1, 255}.
        crs: CRS as text, may be empty.
        transform: Six numbers of the affine transform.
        tags: Metadata by name.
    """
    large = max(mask.shape) > COG_FROM

    def complete(image: DatasetWriter) -> None:
        image.update_tags(**tags or {})
        if large:
            image.write_colormap(1, COLOURS)

    _write(path, mask, crs, transform, {"overview_resampling": "mode"}, complete)


def write_probabilities(path: Path, codes: NDArray[np.uint8], grid: Grid, tags: Mapping[str, str]) -> None:
    """Write probabilities as `write_mask` writes a mask: uint8 with the scale tag 1 / 254, and 255 for no data."""

    def complete(image: DatasetWriter) -> None:
        image.update_tags(**tags)
        image.scales, image.offsets = (1 / SOFT_LABEL_STEPS,), (0.0,)
        image.set_band_description(1, "probability of cloud")

    _write(path, codes, grid.crs, grid.transform, {"overview_resampling": "average"}, complete)


def _write(
    path: Path,
    pixels: NDArray[np.uint8],
    crs: str,
    transform: Sequence[float],
    overviews: Mapping[str, str],
    complete: Callable[[DatasetWriter], None],
) -> None:
    profile: dict[str, Any] = {
        "nodata": IGNORE_INDEX,
        "compress": "deflate",
        "crs": crs or None,
        "transform": Affine(*transform),
    }
    if max(pixels.shape) > COG_FROM:
        profile |= {**COG, **overviews}
    write_geotiff(path, pixels, profile, complete)
