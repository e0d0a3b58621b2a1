"""The public API of prediction, for arrays in memory and images on disk."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloudcover.config.sections import Tta
from cloudcover.masks.decision import decide
from cloudcover.models.packaged import packaged_bundle
from cloudcover.predict.bundle import load_bundle
from cloudcover.predict.images import predict_images
from cloudcover.predict.outputs import Outputs
from cloudcover.predict.predictor import Predictor
from cloudcover.predict.resolution import Resolution
from cloudcover.predict.scenes import Probabilities, predict_scene
from cloudcover.rasters.arrays import ArrayImage, plain, several
from cloudcover.rasters.find import Kind, find_images
from cloudcover.runtime.files import expanded


class CloudModel:
    """A model or bundle that masks clouds in arrays, created by `load_model`.

    Attributes:
        predictor: The networks, with the threshold and other settings of their card.
    """

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    @property
    def bands(self) -> list[str]:
        """Names of the required bands, in order."""
        return list(self.predictor.card.bands)

    def predict(self, image: Any, offset: int = 0, scale: float | None = None) -> NDArray[np.uint8]:
        """Mask the clouds in one or several images of any height and width.

        Args:
            image: B x H x W or N x B x H x W, bands as in `bands`. Integers are digital numbers (reflectance x 10,000;
                0 is no data), floats are reflectance (NaN is no data). A NumPy array, or an xarray array, which may
                have its bands last and is read in strips, so that dask computes only one strip at a time. See
                `rasters.arrays.ArrayImage` for the attributes and names of an xarray array that count.
            offset: Offset that was added to the digital numbers, such as 1000; it is subtracted.
            scale: Reflectance of a stored value of 1, such as 0.0001 for digital numbers stored as floats; None: as
                described above.

        Returns:
            H x W or N x H x W uint8: 1 for cloud, 0 for clear, 255 for no data.

        Raises:
            ValueError: The array has another number of dimensions or bands, or is not numeric.
            PolicyError: The bundle averages views turned by 90 degrees, and the image is not square.
        """
        image = plain(image)
        if (images := several(image)) is not None:
            return np.stack([self.predict(one, offset, scale) for one in images])
        found, predictor = self._look(image, offset, scale), self.predictor
        (mask,) = decide(found.values[np.newaxis], found.empty[np.newaxis], predictor.threshold, predictor.postprocess)
        return np.asarray(mask, np.uint8)

    def probabilities(self, image: Any, offset: int = 0, scale: float | None = None) -> NDArray[np.float32]:
        """Predict the calibrated probability of cloud, before threshold and post-processing.

        Args:
            image: As for `predict`.
            offset: As for `predict`.
            scale: As for `predict`.

        Returns:
            H x W or N x H x W float32 in [0, 1], NaN for no data.

        Raises:
            ValueError: As for `predict`, and also PolicyError.
        """
        image = plain(image)
        if (images := several(image)) is not None:
            return np.stack([self.probabilities(one, offset, scale) for one in images])
        found = self._look(image, offset, scale)
        found.values[found.empty] = np.nan
        return found.values

    def _look(self, image: Any, offset: int, scale: float | None) -> Probabilities:
        nodata = self.predictor.card.nodata
        return predict_scene(ArrayImage(image, scale, offset, nodata, bands=self.bands), self.predictor)


def load_model(
    path: str | PathLike[str] | None = None,
    device: str = "auto",
    precision: str = "auto",
    batch: int = 32,
    tta: Tta | None = None,
    threshold: float | None = None,
) -> CloudModel:
    """Load a model for masking arrays, as in `load_model().predict(array)`.

    Args:
        path: Bundle or model folder, trained or exported; None: the packaged model.
        device: `auto`, `cpu` or `cuda`.
        precision: `auto`, `fp32`, `bf16` or `fp16`.
        batch: Chips per forward pass of the network.
        tta: Test-time augmentation: views to average; None: the bundle's own.
        threshold: Probability above which a pixel is cloud; None: the model's own.

    Raises:
        ModelFolderError: The folder is neither, a part of it is missing or corrupt, or there is no packaged model.
    """
    predictor = load_bundle(packaged_bundle() if path is None else expanded(path), device, precision, batch, threshold)
    if tta is not None:
        predictor.policy = tta
    return CloudModel(predictor)


def predict(
    images: str | PathLike[str] | Sequence[str | PathLike[str]],
    out: str | PathLike[str],
    model: str | PathLike[str] | None = None,
    *,
    kind: Kind | None = None,
    bands: Sequence[int] | None = None,
    offset: int | None = None,
    scale: float | None = None,
    probabilities: bool = False,
    preview: bool = False,
    buffer_m: float = 0.0,
    min_area_m2: float = 0.0,
    resolution: Resolution = None,
    skip_existing: bool = False,
    **options: Any,
) -> list[Path]:
    """Write a cloud mask for each image, like the command `cloudcover predict`.

    Args:
        images: Files, addresses, or folders that contain images at any depth.
        out: Folder to write the masks to.
        model: See `path` of `load_model`.
        kind: Format of the images; None: detected.
        bands: Numbers of a raster's bands, in the order of the model's bands; None: by their descriptions.
        offset: Offset, such as 1000, to subtract from the DN of files without an offset tag; None: unknown.
        scale: Reflectance of a stored value of 1 in files without a scale tag; None: 1 for floating-point numbers,
            0.0001 for integers.
        probabilities: Whether to write probabilities, to `out/probabilities`.
        preview: Whether to write small pictures with cloud outlines, to `out/previews`.
        buffer_m: Width of a margin to add around clouds [m].
        min_area_m2: Smallest area of clouds to keep [m²].
        resolution: Pixel size to resample images to before prediction [m], or `auto`; None: no resampling.
        skip_existing: Whether to skip images that already have their files.
        **options: Options of `load_model`.

    Returns:
        The paths of the masks: uint8 GeoTIFFs, 0 clear, 1 cloud, 255 no data.

    Raises:
        ModelFolderError: See `load_model`.
        FileNotFoundError: An image does not exist.
        UnusableImagesError: Some images have no mask; the message gives the reasons. The masks of all others are
            written.
    """
    paths = [str(images)] if isinstance(images, (str, PathLike)) else [str(image) for image in images]
    predictor = load_model(model, **options).predictor
    card = predictor.card
    found = find_images(paths, card.bands, kind=kind, numbers=bands, offset=offset, scale=scale, nodata=card.nodata)
    outputs = Outputs(expanded(out), probabilities, preview, buffer_m, min_area_m2)
    return predict_images(predictor, found, outputs, resolution=resolution, skip_existing=skip_existing)
