"""The choices for the final models and the evidence for them: the file `models/calibration.json`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from cloudcover.config.sections import Tta
from cloudcover.evaluate.estimate import Estimate
from cloudcover.masks.decision import InferenceSettings

StepName = Literal["weights", "temperature", "threshold", "postprocess"]


class Step(BaseModel):
    """The result of a calibration step.

    Attributes:
        name: One of `weights`, `temperature`, `threshold` and `postprocess`.
        chosen: Value fitted on all groups.
        gain: Gain on held-out groups, in Jaccard or, for the temperature, in log loss (positive is better).
        unit: Unit of the gain: `jaccard` [0-1] or `nats` per pixel.
        used: Whether the interval of the gain is above zero and, for post-processing, small clouds are preserved.
        small_cloud_recall: Share of the pixels of small true clouds that are found on held-out groups [0-1].
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: StepName
    chosen: Any
    gain: Estimate
    unit: Literal["jaccard", "nats"]
    used: bool
    small_cloud_recall: float


class Calibration(BaseModel):
    """The content of `models/calibration.json`: the settings to use, and the evidence for them.

    Attributes:
        settings: Settings for the models of all folds.
        tta: TTA policy of the predictions.
        steps: Steps in the order of their decisions.
        jaccard_before: Jaccard with equal weights, the configured threshold and no post-processing.
        jaccard: Jaccard with the used steps, each group with the values chosen on the others.
        calibration_error_before: Expected calibration error of the probabilities without temperature.
        calibration_error: The same with the temperature, each group with that of the others, whether it is used or not.
        chips: Number of chips in these figures.
        locations: Number of their locations.
        groups: Number of groups of locations.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    settings: InferenceSettings
    tta: Tta
    steps: list[Step]
    jaccard_before: Estimate
    jaccard: Estimate
    calibration_error_before: Estimate
    calibration_error: Estimate
    chips: int
    locations: int
    groups: int

    def figures(self) -> dict[str, Any]:
        """Return the figures for `metrics.json`: gains, whether they are used (1 or 0), and the calibration error."""
        found: dict[str, Any] = {
            step.name: {
                **step.gain.columns("gain"),
                "used": float(step.used),
                "small_cloud_recall": step.small_cloud_recall,
            }
            for step in self.steps
        }
        for name in ("jaccard_before", "jaccard", "calibration_error_before", "calibration_error"):
            estimate: Estimate = getattr(self, name)
            found |= estimate.columns(name)
        return found
