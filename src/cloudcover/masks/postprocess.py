"""Post-processing: from probabilities of cloud to masks without specks and holes."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from scipy import ndimage

COUNTED = 1 << 24
"""Pixels whose regions are counted at a time: numpy counts a copy in 64 bits."""

IN_PLANE = np.zeros((3, 3, 3), np.int8)
IN_PLANE[1] = ndimage.generate_binary_structure(2, 1)
"""Neighbours of a pixel: the four beside it, in its own chip."""


def _odd(value: int) -> int:
    if value and value % 2 == 0:
        raise ValueError("must be odd, so that the window has a centre")
    return value


Window = Annotated[int, Field(ge=0), AfterValidator(_odd)]


class Triplet(BaseModel):
    """Two thresholds and an area, per square of a grid over the chip (Kaggle SIIM-ACR pneumothorax 2019, 1st place).

    A square with at least `sure_pixels` pixels of a probability above `sure` has cloud wherever the ordinary threshold
    is passed; any other square is clear. The original's values are 2 pixels above 0.8, and a threshold of 0.4.

    Attributes:
        square_pixels: side of a square; squares at the right and lower edge may be cut.
        sure: probability above which a pixel is sure.
        sure_pixels: number of sure pixels that a square with cloud has.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    square_pixels: int = Field(default=32, ge=1)
    sure: float = Field(default=0.8, gt=0, lt=1)
    sure_pixels: int = Field(default=2, ge=1)

    def allows(self, probabilities: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Where there may be cloud: N x H x W bool for probabilities N x H x W."""
        count, height, width = probabilities.shape
        side = self.square_pixels
        sure = np.pad(probabilities > self.sure, ((0, 0), (0, -height % side), (0, -width % side)))
        rows, columns = sure.shape[1] // side, sure.shape[2] // side
        enough = sure.reshape(count, rows, side, columns, side).sum(axis=(2, 4)) >= self.sure_pixels
        return np.asarray(enough.repeat(side, axis=1).repeat(side, axis=2)[:, :height, :width])


class Postprocess(BaseModel):
    """Steps in their order; what is 0 or None is left out. Beyond its edge a chip goes on as at the edge.

    Attributes:
        gaussian_sigma_pixels: standard deviation of a Gaussian filter of the probabilities.
        median_pixels: side of the square window of a median filter of the probabilities, odd.
        triplet: rule for squares, or None.
        opening_pixels: side of the square that an opening of the mask removes clouds by, odd.
        closing_pixels: side of the square that a closing of the mask fills gaps by, odd.
        hole_pixels: largest area of enclosed clear regions that become cloud.
        min_area_pixels: smallest area of clouds that stay.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    gaussian_sigma_pixels: float = Field(default=0.0, ge=0)
    median_pixels: Window = 0
    triplet: Triplet | None = None
    opening_pixels: Window = 0
    closing_pixels: Window = 0
    hole_pixels: int = Field(default=0, ge=0)
    min_area_pixels: int = Field(default=0, ge=0)

    def masks(self, probabilities: NDArray[np.float32], threshold: float) -> NDArray[np.bool_]:
        """Masks of cloud.

        Args:
            probabilities: N x H x W float32 in [0, 1].
            threshold: a pixel is cloud at a (filtered) probability above this.

        Returns:
            N x H x W bool.
        """
        if self.gaussian_sigma_pixels:
            sigma = (0, self.gaussian_sigma_pixels, self.gaussian_sigma_pixels)
            probabilities = ndimage.gaussian_filter(probabilities, sigma, mode="nearest")
        if self.median_pixels:
            probabilities = ndimage.median_filter(probabilities, _window(self.median_pixels), mode="nearest")
        cloud = probabilities > threshold
        if self.triplet:
            cloud &= self.triplet.allows(probabilities)
        del probabilities  # a filtered copy is a third of the memory of what follows
        return self.clean(cloud)

    def clean(self, cloud: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The steps on masks alone: N x H x W bool to the same. Each of them, done twice, changes nothing more."""
        # Grey morphology repeats the edge; the binary functions would take what lies beyond it for clear.
        if self.opening_pixels:
            cloud = _grey(ndimage.grey_opening, cloud, self.opening_pixels)
        if self.closing_pixels:
            cloud = _grey(ndimage.grey_closing, cloud, self.closing_pixels)
        if self.hole_pixels:
            cloud = cloud | _holes(cloud, self.hole_pixels)
        if self.min_area_pixels:
            cloud = cloud & ~_specks(cloud, self.min_area_pixels)
        return cloud


NOTHING = Postprocess()
"""The threshold alone."""


def _window(side: int) -> tuple[int, int, int]:
    return 1, side, side


def _grey(operation: object, cloud: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    result: NDArray[np.uint8] = operation(cloud.view(np.uint8), _window(side), mode="nearest")  # type: ignore[operator]
    return result.view(np.bool_)


def _holes(cloud: NDArray[np.bool_], largest: int) -> NDArray[np.bool_]:
    """Enclosed clear regions of at most so many pixels."""
    regions, areas = _regions(~cloud)
    edges = (regions[:, 0], regions[:, -1], regions[:, :, 0], regions[:, :, -1])
    areas[np.concatenate([edge.ravel() for edge in edges])] = largest + 1  # open, not a hole
    return np.asarray((areas <= largest)[regions])


def _specks(cloud: NDArray[np.bool_], least: int) -> NDArray[np.bool_]:
    """Clouds of fewer than so many pixels."""
    regions, areas = _regions(cloud)
    return np.asarray((areas < least)[regions])


def _regions(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Number of each pixel's region (0 outside) and the area of each number; that of 0 is larger than any hole."""
    regions, count = ndimage.label(mask, IN_PLANE)
    areas, flat = np.zeros(count + 1, np.int64), regions.reshape(-1)
    for start in range(0, flat.size, COUNTED):
        areas += np.bincount(flat[start : start + COUNTED], minlength=count + 1)
    areas[0] = np.iinfo(np.int64).max
    return regions, areas
