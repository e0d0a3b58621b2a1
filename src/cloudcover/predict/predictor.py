"""Probabilities of chips by the mean of several models, each over the views of a test-time augmentation policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cloudcover.augment import tta
from cloudcover.config.sections import Tta
from cloudcover.masks.decision import InferenceSettings, apply_temperature
from cloudcover.masks.postprocess import NOTHING, Postprocess
from cloudcover.models.folder import ModelCard
from cloudcover.models.normalize import Normalize
from cloudcover.predict.backends import Backend, load_backend
from cloudcover.predict.openvino.card import CARD as EXPORT_CARD
from cloudcover.runtime.device import resolve_device


class EnsembleError(ValueError):
    """Models that cannot predict together, or chips that a model was not made for."""


class Predictor:
    """Models that predict together; safe to use from several threads.

    Args:
        folders: model folders, trained or exported; they must agree in bands, input scale and nodata value.
        policy: test-time augmentation.
        device: `auto`, `cpu` or `cuda`; exported models take the CPU by `auto`.
        precision: `auto`, `fp32`, `bf16` or `fp16`; an exported model has its own.
        batch: chips per forward pass and view.
        settings: weights by the folders' names, temperature, threshold and post-processing; None: equal weights, and
            the threshold of the first model.

    Raises:
        EnsembleError: no models, models that disagree about their input, or settings of other models.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        policy: Tta = "none",
        device: str = "auto",
        precision: str = "auto",
        batch: int = 32,
        settings: InferenceSettings | None = None,
    ) -> None:
        if not folders:
            raise EnsembleError("an ensemble needs at least one model folder")
        if settings and sorted(settings.weights) != sorted(folder.name for folder in folders):
            raise EnsembleError(
                f"the settings have weights for {sorted(settings.weights)}, the models are {[f.name for f in folders]}"
            )
        if device == "auto" and any((folder / EXPORT_CARD).exists() for folder in folders):
            device = "cpu"
        self.device = resolve_device(device)
        self.policy = policy
        self.batch = batch
        self._settings = settings
        self._weights = [settings.weights[f.name] for f in folders] if settings else [1 / len(folders)] * len(folders)
        self.engines: list[Backend] = [load_backend(folder, self.device, precision) for folder in folders]
        first = self.card
        for folder, engine in zip(folders, self.engines, strict=True):
            for key in ("bands", "input", "nodata"):
                if getattr(engine.card, key) != getattr(first, key):
                    raise EnsembleError(
                        f"{folder} has {key} {getattr(engine.card, key)}, but {folders[0]} has {getattr(first, key)}"
                    )
        self.normalize = Normalize(first.input, first.data_params()).to(self.device)

    @property
    def card(self) -> ModelCard:
        """The card of the first model; what matters for input is the same in all."""
        return self.engines[0].card

    @property
    def threshold(self) -> float:
        """A pixel is cloud at a probability above this."""
        return self._settings.threshold if self._settings else self.card.threshold

    @property
    def postprocess(self) -> Postprocess:
        """What is done with probabilities and masks afterwards."""
        return self._settings.postprocess if self._settings else NOTHING

    def probabilities(self, dn: NDArray[np.uint16], percentiles: NDArray[np.float32]) -> NDArray[np.float32]:
        """Calibrated, weighted mean probability of cloud over models and views.

        Args:
            dn: N x B x H x W uint16 [DN], bands as in the card.
            percentiles: N x B x 2 float32, 2nd and 98th percentile of each band [DN].

        Returns:
            N x H x W float32 in [0, 1].

        Raises:
            EnsembleError: the number of bands is not the models'.
        """
        policy = self.policy
        means = self._means(dn, percentiles, lambda c: tta.views(c, policy), lambda p, n: tta.merge(p, policy, n))
        return apply_temperature(means, self._settings.temperature) if self._settings else means

    def of_view(self, dn: NDArray[np.uint16], percentiles: NDArray[np.float32], view: tta.View) -> NDArray[np.float32]:
        """As `probabilities`, of one view alone, turned back, and without the settings' temperature."""
        return self._means(dn, percentiles, view.apply, lambda p, _: view.undo(p))

    @torch.inference_mode()
    def _means(
        self,
        dn: NDArray[np.uint16],
        percentiles: NDArray[np.float32],
        look: Callable[[Tensor], Tensor],
        back: Callable[[Tensor, int], Tensor],
    ) -> NDArray[np.float32]:
        if dn.shape[1] != len(self.card.bands):
            raise EnsembleError(f"the chips have {dn.shape[1]} bands, the model was made for {self.card.bands}")
        means = np.empty((len(dn), *dn.shape[2:]), np.float32)
        for start in range(0, len(dn), self.batch):
            part = slice(start, start + self.batch)
            chips, bounds = (torch.from_numpy(array[part]).to(self.device) for array in (dn, percentiles))
            seen = look(self.normalize(chips, bounds))
            total = torch.zeros((len(chips), *dn.shape[2:]), device=self.device)
            for engine, weight in zip(self.engines, self._weights, strict=True):
                logits = engine.logits(seen) / engine.card.temperature
                total += weight * back(logits.sigmoid_(), len(chips))
            means[part] = total.cpu().numpy()
        return means
