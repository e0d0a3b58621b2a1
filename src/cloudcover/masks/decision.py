"""What is done with the models' probabilities: weights, temperature, threshold, post-processing."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator
from scipy.special import expit, logit

from cloudcover.data.chips import IGNORE_INDEX
from cloudcover.masks.postprocess import NOTHING, Postprocess

LEAST = 1 / 510
"""Probabilities are kept at least this far from 0 and 1 before a temperature: half a step of a stored byte."""


class InferenceSettings(BaseModel):
    """How a set of models makes masks. The defaults change nothing.

    Attributes:
        weights: of the models' probabilities, by the name of the model's folder; they sum to 1.
        temperature: divides the logit of the mean probability ("pool then calibrate", Rahaman and Thiery 2021).
        threshold: a pixel is cloud at a calibrated probability above this.
        postprocess: filters of the calibrated probabilities and of the mask.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

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
    """Make masks of calibrated probabilities.

    Args:
        probabilities: N x H x W, in [0, 1].
        chips: N x B x H x W [DN].
        threshold: a pixel is cloud at a probability above this.
        nodata: value of pixels without data [DN].
        postprocess: filters of the probabilities and of the mask.

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
    """Make masks as `mask_of`, where the pixels without data are known: `empty` is N x H x W."""
    masks = postprocess.masks(probabilities, threshold).view(np.uint8)
    masks[empty] = IGNORE_INDEX
    return masks


def apply_temperature(probabilities: NDArray[np.floating] | float, temperature: float) -> NDArray[np.float32]:
    """Divides the logits by a temperature (Guo et al. 2017); above 1 it makes probabilities less sure.

    Args:
        probabilities: of any shape, in [0, 1].
        temperature: 1 returns the probabilities as they are.
    """
    if temperature == 1:
        return np.asarray(probabilities, np.float32)
    return np.asarray(expit(logit(np.clip(probabilities, LEAST, 1 - LEAST)) / temperature), np.float32)
