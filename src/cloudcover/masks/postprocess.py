"""Post-processing, from cloud probabilities to masks without specks and holes."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from scipy import ndimage

COUNTED = 1 << 24
"""Pixels whose regions are counted at a time, because numpy counts in a 64-bit copy."""

IN_PLANE = np.zeros((3, 3, 3), np.int8)
IN_PLANE[1] = ndimage.generate_binary_structure(2, 1)
"""Neighbourhood of a pixel: its four neighbours in the same chip."""


def _odd(value: int) -> int:
    if value and value % 2 == 0:
        raise ValueError("must be odd, so that the window has a centre")
    return value


Window = Annotated[int, Field(ge=0), AfterValidator(_odd)]


class Triplet(BaseModel):
    """A rule of two thresholds and an area per grid square (Kaggle SIIM-ACR pneumothorax 2019, 1st place).

    A square with at least `sure_pixels` pixels above the probability `sure` is cloud wherever the ordinary threshold is
    exceeded. Any other square is clear. The original uses 2 pixels above 0.8, and a threshold of 0.4.

    Attributes:
        square_pixels: Side of a square; squares at the right and lower edge may be cropped.
        sure: Probability above which a pixel is sure.
        sure_pixels: Minimum number of sure pixels in a square with cloud.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    square_pixels: int = Field(default=32, ge=1)
    sure: float = Field(default=0.8, gt=0, lt=1)
    sure_pixels: int = Field(default=2, ge=1)

    def allows(self, probabilities: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return where cloud is allowed: N x H x W bool for probabilities N x H x W."""
        count, height, width = probabilities.shape
        side = self.square_pixels
        sure = np.pad(probabilities > self.sure, ((0, 0), (0, -height % side), (0, -width % side)))
        rows, columns = sure.shape[1] // side, sure.shape[2] // side
        enough = sure.reshape(count, rows, side, columns, side).sum(axis=(2, 4)) >= self.sure_pixels
        return np.asarray(enough.repeat(side, axis=1).repeat(side, axis=2)[:, :height, :width])


class Postprocess(BaseModel):
    """Post-processing steps in order; steps set to 0 or None are skipped. Chips are extended by repeating their edges.

    Attributes:
        gaussian_sigma_pixels: Standard deviation of a Gaussian filter for the probabilities.
        median_pixels: Side of the square window of a median filter for the probabilities, odd.
        triplet: Rule for squares, or None.
        opening_pixels: Side of the square for an opening of the mask, which removes clouds; odd.
        closing_pixels: Side of the square for a closing of the mask, which fills gaps; odd.
        hole_pixels: Largest area of enclosed clear regions to fill with cloud.
        min_area_pixels: Smallest area of clouds to keep.
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
        """Make masks of cloud.

        Args:
            probabilities: N x H x W float32 in [0, 1].
            threshold: (Filtered) probability above which a pixel is cloud.

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
        del probabilities  # a filtered copy takes a third of the memory of the next steps
        return self.clean(cloud)

    def clean(self, cloud: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Apply the steps for masks, N x H x W bool to the same; each of them is idempotent."""
        # Grey morphology repeats the edge; the binary functions would treat everything beyond it as clear.
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
"""Only the threshold."""


def _window(side: int) -> tuple[int, int, int]:
    return 1, side, side


def _grey(operation: object, cloud: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    result: NDArray[np.uint8] = operation(cloud.view(np.uint8), _window(side), mode="nearest")  # type: ignore[operator]
    return result.view(np.bool_)


def _holes(cloud: NDArray[np.bool_], largest: int) -> NDArray[np.bool_]:
    """Return enclosed clear regions of at most so many pixels."""
    regions, areas = _regions(~cloud)
    edges = (regions[:, 0], regions[:, -1], regions[:, :, 0], regions[:, :, -1])
    areas[np.concatenate([edge.ravel() for edge in edges])] = largest + 1  # open, not a hole
    return np.asarray((areas <= largest)[regions])


def _specks(cloud: NDArray[np.bool_], least: int) -> NDArray[np.bool_]:
    """Return clouds of fewer than so many pixels."""
    regions, areas = _regions(cloud)
    return np.asarray((areas < least)[regions])


def _regions(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Label regions: number of each pixel's region (0 outside), and area per number; that of 0 exceeds any hole."""
    regions, count = ndimage.label(mask, IN_PLANE)
    areas, flat = np.zeros(count + 1, np.int64), regions.reshape(-1)
    for start in range(0, flat.size, COUNTED):
        areas += np.bincount(flat[start : start + COUNTED], minlength=count + 1)
    areas[0] = np.iinfo(np.int64).max
    return regions, areas
