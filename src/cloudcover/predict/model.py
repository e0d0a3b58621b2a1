"""The public API of prediction: masks of arrays in memory, and of images on disk."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloudcover.config.sections import Tta
from cloudcover.data.values import DN_PER_REFLECTANCE
from cloudcover.models.folder import ModelFolderError
from cloudcover.predict.bundle import load_bundle
from cloudcover.predict.files import chip_percentiles
from cloudcover.predict.folder import find_chips, predict_chips
from cloudcover.predict.predictor import Predictor

PACKAGED = Path(__file__).parents[1] / "assets" / "box"
"""The bundle that comes with the package."""


class CloudModel:
    """A model or bundle that masks clouds in arrays; made by `load_model`.

    Attributes:
        predictor: The networks, with the threshold and everything else that their card says.
    """

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    @property
    def bands(self) -> list[str]:
        """Names of the bands that an image must have, in this order."""
        return list(self.predictor.card.bands)

    def predict(self, image: Any) -> NDArray[np.uint8]:
        """Mask the clouds of one image or of several.

        Args:
            image: B x H x W or N x B x H x W, bands as in `bands`: integers are digital numbers (reflectance x 10,000,
                without an offset; 0 is no data), floats are reflectance (NaN is no data). NumPy arrays and whatever
                NumPy converts, such as `xarray.DataArray`.

        Returns:
            H x W or N x H x W uint8: 1 for cloud, 0 for clear, 255 for no data.

        Raises:
            ValueError: The array has another number of dimensions or bands.
            PolicyError: The bundle averages views that are turned by 90 degrees, and the image is not square.
        """
        masks = self.predictor.masks(*self._prepare(image))
        return masks if np.ndim(image) == 4 else masks[0]

    def probabilities(self, image: Any) -> NDArray[np.float32]:
        """Predict the calibrated probability of cloud, before threshold and post-processing.

        Args:
            image: As for `predict`.

        Returns:
            H x W or N x H x W float32 in [0, 1], NaN for no data.

        Raises:
            ValueError: As for `predict`, and so is PolicyError.
        """
        dn, percentiles = self._prepare(image)
        result = self.predictor.probabilities(dn, percentiles)
        result[(dn == self.predictor.card.nodata).any(axis=1)] = np.nan
        return result if np.ndim(image) == 4 else result[0]

    def _prepare(self, image: Any) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
        """Digital numbers N x B x H x W and the percentiles of their bands."""
        if np.ndim(image) not in (3, 4):
            raise ValueError(f"expected B x H x W or N x B x H x W, got an array of shape {np.shape(image)}")
        array = np.asarray(image)
        chips = array if array.ndim == 4 else array[np.newaxis]
        if chips.shape[1] != len(self.bands):
            raise ValueError(
                f"the image has {chips.shape[1]} bands (axis {array.ndim - 3} of shape {array.shape}), "
                f"but the model needs {len(self.bands)}: {', '.join(self.bands)}"
            )
        nodata = self.predictor.card.nodata
        dn = dn_of(chips, nodata)
        return dn, chip_percentiles(dn, nodata)


def dn_of(array: NDArray[Any], nodata: int) -> NDArray[np.uint16]:
    """Convert integers (DN) or floats (reflectance) to digital numbers.

    Args:
        array: Any shape. NaN is no data; other values are clipped to what uint16 holds without becoming `nodata`.
        nodata: Value of pixels without data [DN].

    Returns:
        The same shape, uint16 [DN].

    Raises:
        ValueError: The array holds neither integers nor floats.
    """
    if array.dtype.kind in "ui":
        return np.asarray(np.clip(array, 0, np.iinfo(np.uint16).max), np.uint16)
    if array.dtype.kind != "f":
        raise ValueError(f"expected integers (digital numbers) or floats (reflectance), got {array.dtype}")
    dn: NDArray[Any] = np.clip(np.rint(array * DN_PER_REFLECTANCE), 1, np.iinfo(np.uint16).max)
    dn[np.isnan(array)] = nodata
    return np.asarray(dn, np.uint16)


def load_model(
    path: str | PathLike[str] | None = None,
    device: str = "auto",
    precision: str = "auto",
    batch: int = 32,
    tta: Tta | None = None,
) -> CloudModel:
    """Load a model to mask arrays with: `load_model().predict(array)`.

    Args:
        path: A bundle, or a single model folder, trained or exported; None: the model that comes with the package.
        device: `auto`, `cpu` or `cuda`.
        precision: `auto`, `fp32`, `bf16` or `fp16`.
        batch: Chips per forward pass of the network.
        tta: Views to average; None: those that the bundle was measured with.

    Raises:
        ModelFolderError: The folder is neither, a part of it is missing or corrupt, or there is no packaged model.
    """
    predictor = load_bundle(_existing(path), device, precision, batch)
    if tta is not None:
        predictor.policy = tta
    return CloudModel(predictor)


def predict(
    images: str | PathLike[str] | Sequence[str | PathLike[str]],
    out: str | PathLike[str],
    model: str | PathLike[str] | None = None,
    offset: int = 0,
    **options: Any,
) -> list[Path]:
    """Write a cloud mask for each image, like the command `cloudcover predict`.

    Args:
        images: Chip folders, or folders that hold them at any depth.
        out: Folder of the masks.
        model: As `path` of `load_model`.
        offset: What was added to the DN of files without an offset tag, such as 1000; subtracted on reading.
        **options: Those of `load_model`.

    Returns:
        The written files: uint8 GeoTIFFs, 0 clear, 1 cloud, 255 no data.

    Raises:
        ModelFolderError: As for `load_model`.
        FileNotFoundError: An image does not exist.
        UnusableChipsError: Some images have no mask; the message says why. The masks of all others are written.
    """
    paths = [Path(images)] if isinstance(images, (str, PathLike)) else [Path(image) for image in images]
    loaded = load_model(model, **options)
    return predict_chips(loaded.predictor, find_chips(paths, loaded.bands), Path(out), offset)


def _existing(path: str | PathLike[str] | None) -> Path:
    """The folder of a model; the packaged one if none is named."""
    if path is not None:
        return Path(path)
    if not PACKAGED.exists():
        raise ModelFolderError(
            f"this installation has no model of its own ({PACKAGED} is missing): train one by `make demo`, "
            "and name its folder, models/bundle"
        )
    return PACKAGED
