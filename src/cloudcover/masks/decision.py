"""From the models' probabilities to masks: weights, temperature, threshold, post-processing."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator
from scipy.special import expit, logit

from cloudcover.data.chips import IGNORE_INDEX
from cloudcover.masks.postprocess import NOTHING, Postprocess

LEAST = 1 / 510
"""Minimum distance of probabilities from 0 and 1 before a temperature is applied: half a step of a stored byte."""


class InferenceSettings(BaseModel):
    """Settings for making masks from a set of models. The defaults change nothing.

    Attributes:
        weights: Weights of the models' probabilities, by the name of the model's folder; their sum is 1.
        temperature: Divisor of the logit of the mean probability ("pool then calibrate", Rahaman and Thiery 2021).
        threshold: Calibrated probability above which a pixel is cloud.
        postprocess: Filters for the calibrated probabilities and the mask.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    weights: dict[str, float] = Field(min_length=1)
    temperature: float = Field(default=1.0, gt=0)
    threshold: float = Field(default=0.5, gt=0, lt=1)
    postprocess: Postprocess = NOTHING

    @field_validator("weights")
    @classmethod
    def _sum_to_one(cls, weights: dict[str, float]) -> dict[str, float]:
        if min(weights.values()) < 0 or not math.isclose(sum(weights.values()), 1, abs_tol=1e-6):
            raise ValueError(f"weights must be 0 or more and sum to 1, got {weights}")
        return weights


def mask_of(
    probabilities: NDArray[np.float32],
    chips: NDArray[np.uint16],
    threshold: float,
    nodata: int,
    postprocess: Postprocess = NOTHING,
) -> NDArray[np.uint8]:
    """Make masks from calibrated probabilities.

    Args:
        probabilities: N x H x W, in [0, 1].
        chips: N x B x H x W [DN].
        threshold: Probability above which a pixel is cloud.
        nodata: Value of pixels without data [DN].
        postprocess: Filters for the probabilities and the mask.

    Returns:
        N x H x W uint8: 1 for cloud, 0 for clear, 255 where any band has no data.
    """
    return decide(probabilities, (chips == nodata).any(axis=1), threshold, postprocess)


def decide(
    probabilities: NDArray[np.float32],
    empty: NDArray[np.bool_],
    threshold: float,
    postprocess: Postprocess = NOTHING,
) -> NDArray[np.uint8]:
    """Make masks as `mask_of` does, from a known array `empty` (N x H x W) of the pixels without data."""
    masks = postprocess.masks(probabilities, threshold).view(np.uint8)
    masks[empty] = IGNORE_INDEX
    return masks


def apply_temperature(probabilities: NDArray[np.floating] | float, temperature: float) -> NDArray[np.float32]:
    """Divide the logits by a temperature (Guo et al. 2017); above 1 it makes probabilities less confident.

    Args:
        probabilities: Probabilities in [0, 1], any shape.
        temperature: Temperature; 1 returns the probabilities unchanged.
    """
    if temperature == 1:
        return np.asarray(probabilities, np.float32)
    return np.asarray(expit(logit(np.clip(probabilities, LEAST, 1 - LEAST)) / temperature), np.float32)
