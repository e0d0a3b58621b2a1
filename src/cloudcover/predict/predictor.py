"""Probabilities of chips by the mean of several models, each over the views of a test-time augmentation policy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cloudcover import tta
from cloudcover.compute import precision as precision_of
from cloudcover.compute import resolve_device
from cloudcover.inputs import Scaler
from cloudcover.models.folder import ModelCard, load_model
from cloudcover.params import Tta

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class EnsembleError(ValueError):
    """Models that cannot predict together, or chips that a model was not made for."""


class Predictor:
    """Models that predict together.

    Args:
        folders: model folders; they must agree in bands, input scale and nodata value.
        policy: test-time augmentation.
        device: `auto`, `cpu` or `cuda`.
        precision: `auto`, `fp32`, `bf16` or `fp16`.
        batch: chips per forward pass and view.
        threshold: a pixel is cloud at a probability above this; None: that of the first model.

    Raises:
        EnsembleError: no models, or models that disagree about their input.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        policy: Tta = "none",
        device: str = "auto",
        precision: str = "auto",
        batch: int = 32,
        threshold: float | None = None,
    ) -> None:
        if not folders:
            raise EnsembleError("an ensemble needs at least one model folder")
        self.device = resolve_device(device)
        self.dtype = DTYPES[precision_of(precision, self.device)]
        self.policy = policy
        self.batch = batch
        self._threshold = threshold
        self.networks: list[nn.Module] = []
        self.cards: list[ModelCard] = []
        for folder in folders:
            network, card = load_model(folder, self.device)
            self.networks.append(network.eval().to(memory_format=torch.channels_last))  # type: ignore[call-overload]
            self.cards.append(card)
        first = self.card
        for folder, card in zip(folders, self.cards, strict=True):
            for key in ("bands", "input", "nodata"):
                if getattr(card, key) != getattr(first, key):
                    raise EnsembleError(
                        f"{folder} has {key} {getattr(card, key)}, but {folders[0]} has {getattr(first, key)}"
                    )
        self.scaler = Scaler(first.input, first.data_params()).to(self.device)

    @property
    def card(self) -> ModelCard:
        """The card of the first model; what matters for input is the same in all."""
        return self.cards[0]

    @property
    def threshold(self) -> float:
        """A pixel is cloud at a probability above this."""
        return self.card.threshold if self._threshold is None else self._threshold

    def probabilities(self, dn: NDArray[np.uint16], limits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Mean probability of cloud over models and views.

        Args:
            dn: N x B x H x W uint16 [DN], bands as in the card.
            limits: N x B x 2 float32, 2nd and 98th percentile of each band [DN].

        Returns:
            N x H x W float32 in [0, 1].

        Raises:
            EnsembleError: the number of bands is not the models'.
        """
        total = np.zeros((len(dn), *dn.shape[2:]), np.float32)
        for part, probabilities in self.each(dn, limits):
            total[part] += probabilities / len(self.networks)
        return total

    def each(self, dn: NDArray[np.uint16], limits: NDArray[np.float32]) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Probabilities model by model: pairs of a slice of the chips and its n x H x W float32."""
        if dn.shape[1] != len(self.card.bands):
            raise EnsembleError(f"the chips have {dn.shape[1]} bands, the model was made for {self.card.bands}")
        for start in range(0, len(dn), self.batch):
            part = slice(start, start + self.batch)
            with torch.inference_mode(), torch.autocast(self.device, self.dtype, enabled=self.dtype != torch.float32):
                chips = torch.from_numpy(dn[part]).to(self.device)
                bounds = torch.from_numpy(limits[part]).to(self.device)
                inputs = self.scaler(chips, bounds).contiguous(memory_format=torch.channels_last)
                stacked = tta.views(inputs, self.policy)
                for network in self.networks:
                    logits = network(stacked).float()[:, 0]
                    yield part, tta.merge(logits.sigmoid(), self.policy, len(inputs)).cpu().numpy()
