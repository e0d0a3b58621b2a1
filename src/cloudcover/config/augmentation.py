"""Parameters of the training augmentations."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cloudcover.config.section import Section, Share

PerChip = Literal[
    "hflip", "vflip", "rotate90", "d4", "affine", "brightness_contrast", "mosaic", "cutmix", "chessmix", "cloud_paste",
]  # fmt: skip
"""Augmentations that are drawn for each chip; the name is that of their probability."""


class AugmentationParams(Section):
    """Random augmentation of training batches."""

    hflip: Share = Field(0.5, description="probability of a left-right flip [0-1]")
    vflip: Share = Field(0.5, description="probability of an up-down flip [0-1]")
    rotate90: Share = Field(0.0, description="probability of a turn by 90, 180 or 270 degrees [0-1]")
    d4: Share = Field(0.0, description="probability of one of the square's eight symmetries, drawn uniformly [0-1]")
    affine: Share = Field(0.0, description="probability of a rotation and zoom about the centre [0-1]")
    rotation: float = Field(45.0, ge=0, le=180, description="affine: maximum rotation in either direction [degrees]")
    zoom: float = Field(1.4, ge=1, description="affine: maximum magnification; the minimum is 1 / zoom")
    brightness_contrast: Share = Field(
        0.0, description="probability of a change in brightness and contrast, drawn per band [0-1]"
    )
    brightness: Share = Field(0.2, description="brightness_contrast: maximum relative change of a band's mean [0-1]")
    contrast: Share = Field(
        0.2, description="brightness_contrast: maximum relative change of the distance from the mean [0-1]"
    )
    mosaic: Share = Field(0.0, description="probability of a mosaic of four chips around a random point [0-1]")
    cutmix: Share = Field(0.0, description="probability that a rectangle is replaced by another chip's [0-1]")
    chessmix: Share = Field(
        0.0, description="probability that every second square of a chessboard is replaced by another chip's [0-1]"
    )
    chessmix_squares: int = Field(4, ge=2, description="chessmix: number of squares per side")
    cloud_paste: Share = Field(0.0, description="probability that another chip's clouds are pasted in, all bands [0-1]")
    crop_size: int | None = Field(
        None,
        ge=32,
        multiple_of=32,
        description="height and width of the random training window [pixels]; null: whole chip",
    )
    multi_resolution: Share = Field(
        0.0, description="probability that a batch is resampled to another resolution [0-1]"
    )
    resolutions: list[Annotated[float, Field(gt=0, le=4)]] = Field(
        [0.75, 1.25],
        min_length=1,
        description="multi_resolution: scale factors to draw from; sizes are rounded to multiples of 32 pixels",
    )
    pseudo: dict[PerChip, Share] = Field(
        {},
        description="noise of the student (Xie et al. 2020): probabilities that differ for pseudo-labelled chips",
    )

    @property
    def mixes(self) -> bool:
        """Return whether chips may be mixed with each other."""
        mixing: tuple[PerChip, ...] = ("mosaic", "cutmix", "chessmix", "cloud_paste")
        return any(max(self.probabilities(name)) > 0 for name in mixing)

    def probabilities(self, name: PerChip) -> tuple[float, float]:
        """Return the probability of an augmentation for chips with a given label, and for pseudo-labelled ones."""
        given: float = getattr(self, name)
        return given, self.pseudo.get(name, given)
