"""What was chosen for the final models, and what speaks for it: the file `models/calibration.json`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from cloudcover.config.sections import Tta
from cloudcover.evaluate.estimate import Estimate
from cloudcover.masks.decision import InferenceSettings

StepName = Literal["weights", "temperature", "threshold", "postprocess"]


class Step(BaseModel):
    """What came of a step.

    Attributes:
        name: `weights`, `temperature`, `threshold` or `postprocess`.
        chosen: the value fitted on all groups.
        gain: on held-out groups; of the Jaccard, or of the log loss for the temperature (positive: better).
        unit: of the gain: `jaccard` [0-1] or `nats` per pixel.
        used: whether the interval of the gain lies above zero, and post-processing leaves small clouds.
        small_cloud_recall: share of the pixels of small true clouds that are found on held-out groups [0-1].
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: StepName
    chosen: Any
    gain: Estimate
    unit: Literal["jaccard", "nats"]
    used: bool
    small_cloud_recall: float


class Calibration(BaseModel):
    """`models/calibration.json`: the settings to use, and what speaks for them.

    Attributes:
        settings: for the models of all folds.
        tta: the policy of the predictions.
        steps: in the order in which they were decided.
        jaccard_before: of equal weights, the configured threshold and no post-processing.
        jaccard: of what is used, each group by what was chosen on the others.
        calibration_error_before: expected calibration error of the probabilities without temperature.
        calibration_error: with the temperature, each group by that of the others, whether it is used or not.
        chips: number of chips that all this is of.
        locations: their locations.
        groups: of locations.
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
        """For `metrics.json`: gains and whether they are used (1 or 0), and the calibration error."""
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
