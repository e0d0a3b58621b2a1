"""Nested choice of weights, temperature, threshold and post-processing, used only where they help.

Locations are split into groups. For each group, every step is fitted on the chips of the other groups and evaluated on
the group's own chips (nested cross-validation, Varma and Simon 2006). A step is used if the 95 % interval of its gain,
by resampling locations, is above zero. Its value is then fitted on all groups.

Two dependencies remain. Whether a step is used depends on all groups, and the members have learned from scenes of other
groups, as in every stacked model (Wolpert 1992).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cloudcover.config.sections import CalibrationParams, EvaluationParams, Tta
from cloudcover.evaluate.calibrate.calibration import Calibration, Step, StepName
from cloudcover.evaluate.calibrate.candidate import SMALL_LOSS, InferenceCandidate, Scorer
from cloudcover.evaluate.calibrate.ensemble import Kind, weights_on
from cloudcover.evaluate.calibrate.held_out import HeldOut
from cloudcover.evaluate.calibrate.search import search
from cloudcover.evaluate.calibrate.temperature import calibration_error, reliability, reliability_sums
from cloudcover.evaluate.estimate import Estimate
from cloudcover.evaluate.metrics import bootstrap, draw, paired_bootstrap
from cloudcover.masks.codec import PREDICTION_STEPS
from cloudcover.masks.decision import apply_temperature
from cloudcover.masks.overlap import Floats, share
from cloudcover.masks.temperature import fit_temperature, levels, log_loss
from cloudcover.runtime.files import derive_seed

Rows = NDArray[np.bool_]
Fit = Callable[[Rows, InferenceCandidate], InferenceCandidate]
"""Function that fits a step on some chips, given the steps used so far; without chips it changes nothing."""
KINDS: dict[Kind, str] = {"oof": "one set of weights", "fold": "weights by fold"}


@dataclass
class Calibrator:
    """The calibration steps, decided one after another.

    Attributes:
        scorer: Evaluates candidates.
        evaluation: Threshold and number of resamples.
        params: Number of trials.
        seed: Random seed for pixels, trials and resamples.
    """

    scorer: Scorer
    evaluation: EvaluationParams
    params: CalibrationParams
    seed: int

    def __post_init__(self) -> None:
        self.held = self.scorer.held
        self.group = self.held.chips["group"].to_numpy()
        self.groups = int(self.group.max()) + 1
        self.everything = np.ones(len(self.group), bool)
        start = InferenceCandidate(self.held.equal(), threshold=self.evaluation.threshold)
        self.used = start
        self.used_nested = [start] * self.groups
        self.steps: list[Step] = []
        codes, names = pd.factorize(self.held.chips["location"], sort=True)
        self._member = np.equal.outer(np.arange(len(names)), codes).astype(np.int64)
        self._draws = draw(len(names), self.evaluation.resamples, seed=self.seed)

    def nested(self, fit: Fit) -> list[InferenceCandidate]:
        """Fit a step for each group on the chips of all other groups."""
        return [fit(self.group != group, current) for group, current in enumerate(self.used_nested)]

    def gain(self, nested: list[InferenceCandidate]) -> Estimate:
        """Return the gain in Jaccard on held-out groups over the steps used so far."""
        a, b = self.scorer.nested(nested), self.scorer.nested(self.used_nested)
        return paired_bootstrap(a, b, "location", self.evaluation.resamples, self.seed)

    def small_recall(self, nested: list[InferenceCandidate]) -> float:
        """Return the share of small true clouds' pixels found on held-out groups [0-1]; 1 without any."""
        sums = sum(
            self.scorer.small(candidate)[self.group == group].sum(axis=0) for group, candidate in enumerate(nested)
        )
        return float(share(*sums))

    def decide(
        self, name: StepName, fit: Fit, value: Callable[[InferenceCandidate], Any], gain: Estimate | None = None
    ) -> None:
        """Use a step if the interval of its gain is above zero and, for post-processing, small clouds are preserved.

        Args:
            name: Name of the step.
            fit: Function that fits the step.
            value: Function that extracts the chosen value from the fitted candidate.
            gain: Gain in log loss; None: the gain in Jaccard is measured.
        """
        nested = self.nested(fit)
        unit: Literal["jaccard", "nats"] = "jaccard" if gain is None else "nats"
        gain = self.gain(nested) if gain is None else gain
        fitted = fit(self.everything, self.used)
        recall = [self.small_recall(candidates) for candidates in (self.used_nested, nested)]
        used = gain.low > 0 and (name != "postprocess" or recall[1] >= (1 - SMALL_LOSS) * recall[0])
        step = Step(name=name, chosen=value(fitted), gain=gain, unit=unit, used=used, small_cloud_recall=recall[1])
        self.steps.append(step)
        if used:
            self.used, self.used_nested = fitted, nested

    # The steps

    def fit_weights(self, kind: Kind) -> Fit:
        """Return a function that fits weights; see `ensemble.weights_on`."""
        seed = derive_seed(self.seed, "weights")
        return lambda rows, current: replace(current, weights=weights_on(self.held, rows, kind, seed))

    def fit_temperature(self, rows: Rows, current: InferenceCandidate) -> InferenceCandidate:
        """Fit the temperature with the lowest log loss, and move the threshold to its scale."""
        temperature = fit_temperature(self.held.histograms(current.weights)[rows].sum(axis=0))
        if temperature == 1:
            return current
        threshold = scaled(current.threshold, temperature)
        return replace(current, temperature=temperature, threshold=threshold)

    def fit_threshold(self, rows: Rows, current: InferenceCandidate) -> InferenceCandidate:
        """Find the threshold with the highest global Jaccard, exactly: the histogram contains all thresholds."""
        histogram = self.held.histograms(current.weights)[rows].sum(axis=0)
        if not histogram.any():
            return current
        near = np.interp(current.threshold, levels(current.temperature), np.arange(PREDICTION_STEPS + 1))
        level = best_level(histogram, float(near))
        return replace(current, threshold=scaled((level + 0.5) / PREDICTION_STEPS, current.temperature))

    def fit_postprocess(self, rows: Rows, current: InferenceCandidate) -> InferenceCandidate:
        """Search for post-processing; see `search.search`."""
        return search(self.scorer, rows, current, self.params.trials, derive_seed(self.seed, "postprocess"))

    # Calibration

    def by_location(self, per_chip: Floats) -> Floats:
        """Sum over the chips of each location: locations x …."""
        return np.asarray(np.tensordot(self._member, per_chip, 1))

    def estimate(self, per_chip: Floats, statistic: Callable[[Floats], Floats]) -> Estimate:
        """Compute a figure from sums over chips, with its interval by location."""
        sums = self.by_location(per_chip)
        values = statistic(np.tensordot(self._draws, sums, 1))
        return Estimate.of_resamples(float(statistic(sums.sum(axis=0))), values, len(sums))

    def calibrated(
        self, nested: Sequence[InferenceCandidate], of: Callable[[NDArray[np.int64], float], Floats]
    ) -> Floats:
        """Evaluate `of(histogram, temperature)` for each chip with its group's candidate."""
        parts: Floats = np.concatenate(
            [of(self.held.histograms(c.weights)[self.group == g], c.temperature) for g, c in enumerate(nested)]
        )
        result = np.empty_like(parts)
        result[np.argsort(self.group, kind="stable")] = parts
        return result


def calibrate(
    held: HeldOut, tta: Tta, evaluation: EvaluationParams, params: CalibrationParams, seed: int, threads: int = 1
) -> tuple[Calibration, pd.DataFrame, pd.DataFrame]:
    """Choose how the members' predictions become masks.

    Args:
        held: Their out-of-fold predictions.
        tta: TTA policy of these predictions.
        evaluation: Threshold to start from, and number of resamples.
        params: Number of trials.
        seed: Random seed for pixels, trials and resamples.
        threads: Number of threads that make masks.

    Returns:
        The calibration, the ensemble table (one row per combination: Jaccard on held-out groups and its gain over equal
        weights, with intervals), and the reliability diagram (before and after temperature).
    """
    calibrator = Calibrator(Scorer(held, threads), evaluation, params, seed)
    before = calibrator.scorer.nested(calibrator.used_nested)
    ensemble, kind = compare_weights(calibrator)
    calibrator.decide("weights", calibrator.fit_weights(kind), lambda c: dict(_rounded(held, c)))

    raw = list(calibrator.used_nested)
    tempered = calibrator.nested(calibrator.fit_temperature)
    losses = [calibrator.calibrated(c, log_loss) for c in (raw, tempered)]
    pixels = calibrator.calibrated(raw, lambda histogram, _: histogram.sum(axis=(1, 2)).astype(np.float64))
    gain = calibrator.estimate(
        np.stack([losses[0] - losses[1], pixels], axis=-1), lambda s: s[..., 0] / np.maximum(s[..., 1], 1)
    )
    calibrator.decide("temperature", calibrator.fit_temperature, lambda c: c.temperature, gain)
    sums = [calibrator.calibrated(c, reliability_sums) for c in (raw, tempered)]
    errors = [calibrator.estimate(s, calibration_error) for s in sums]
    diagram = pd.concat(
        reliability(s.sum(axis=0)).assign(temperature=name) for s, name in zip(sums, ("before", "after"), strict=True)
    )

    calibrator.decide("threshold", calibrator.fit_threshold, lambda c: c.threshold)
    calibrator.decide("postprocess", calibrator.fit_postprocess, lambda c: {
        "threshold": c.threshold, **c.postprocess.model_dump(exclude_defaults=True)})  # fmt: skip

    after = calibrator.scorer.nested(calibrator.used_nested)
    estimates = [bootstrap(c, "location", evaluation.resamples, seed) for c in (before, after)]
    calibration = Calibration(
        settings=calibrator.used.settings(list(held.members), list(range(held.folds))),
        tta=tta,
        steps=calibrator.steps,
        jaccard_before=estimates[0],
        jaccard=estimates[1],
        calibration_error_before=errors[0],
        calibration_error=errors[1],
        chips=len(held.chips),
        locations=held.chips["location"].nunique(),
        groups=calibrator.groups,
    )
    return calibration, ensemble, diagram


def compare_weights(calibrator: Calibrator) -> tuple[pd.DataFrame, Kind]:
    """Compare members and combinations with equal weights on held-out groups; also return the better way to fit.

    The better of two ways is chosen by the same figures that decide whether it is used, which is slightly optimistic.
    """
    held = calibrator.held
    names = list(held.members)
    single = {name: ((*(float(n == name) for n in names),),) * held.folds for name in names}
    rows: dict[str, list[InferenceCandidate]] = {
        name: [replace(c, weights=weights) for c in calibrator.used_nested] for name, weights in single.items()
    }
    rows["equal weights"] = calibrator.used_nested
    if len(names) > 1:
        rows |= {label: calibrator.nested(calibrator.fit_weights(kind)) for kind, label in KINDS.items()}
    table = []
    for name, nested in rows.items():
        estimate = bootstrap(
            calibrator.scorer.nested(nested), "location", calibrator.evaluation.resamples, calibrator.seed
        )
        gain = calibrator.gain(nested)
        table.append({"combination": name, **estimate.columns("jaccard"), **gain.columns("gain")})
    frame = pd.DataFrame(table)
    gains = frame.set_index("combination")["gain_low"]
    best = max(KINDS, key=lambda kind: gains.get(KINDS[kind], 0.0))
    return frame, best


def best_level(histogram: NDArray[np.int64], near: float) -> int:
    """Return the level above which pixels should be cloud for the highest Jaccard; of ties, the nearest to `near`.

    Args:
        histogram: 2 (clear, cloud) x 256.
        near: Level, possibly fractional.
    """
    false, true = np.cumsum(histogram[:, ::-1], axis=1)[:, ::-1][:, 1:]  # pixels above each of the levels 0 to 254
    union = histogram[1].sum() + false
    jaccard = share(true, union)
    best = np.flatnonzero(jaccard == jaccard.max())
    return int(best[np.argmin(np.abs(best + 0.5 - near))])


def scaled(threshold: float, temperature: float) -> float:
    """Convert a threshold to the scale of calibrated probabilities, strictly between 0 and 1."""
    return float(np.clip(round(float(apply_temperature(threshold, temperature)), 6), 1e-6, 1 - 1e-6))


def _rounded(held: HeldOut, candidate: InferenceCandidate) -> list[tuple[str, list[float]]]:
    """Return the weights of each member by fold, rounded for the table."""
    table = np.array(candidate.weights)
    return [(member, [round(float(w), 4) for w in table[:, number]]) for number, member in enumerate(held.members)]
