"""Probabilities of chips: the mean of several models, each over the views of a test-time augmentation policy."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cloudcover.augment import tta
from cloudcover.config.sections import Tta
from cloudcover.data.chips import IGNORE_INDEX
from cloudcover.masks.decision import LEAST, InferenceSettings, apply_temperature, mask_of
from cloudcover.masks.postprocess import NOTHING, Postprocess
from cloudcover.models.folder import ModelCard
from cloudcover.models.normalize import Normalize
from cloudcover.predict.backends import Backend, load_backend
from cloudcover.predict.openvino.card import CARD as EXPORT_CARD
from cloudcover.runtime.device import DeviceMemoryError, is_out_of_memory, resolve_device
from cloudcover.runtime.text import listed

Number = TypeVar("Number", bound=np.generic)


LONG_RUN_PIXELS = 40_000 * 512**2
"""Number of pixels, including views, from which compiling a network for a GPU saves time (docs/benchmarks.md)."""


class EnsembleError(ValueError):
    """Models that cannot predict together, or chips that do not match a model."""


class NotFiniteError(ValueError):
    """Probabilities of a chip that are not finite, so there is no mask.

    Attributes:
        row: Position of the chip in the given batch.
    """

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(reason)
        self.row = row


class Predictor:
    """Models that predict together; safe to use from several threads.

    Args:
        folders: Model folders, trained or exported; they must agree in bands, input scale and nodata value.
        policy: Test-time augmentation.
        device: `auto`, `cpu` or `cuda`; for exported models, `auto` is the CPU.
        precision: `auto`, `fp32`, `bf16` or `fp16`; exported models have a fixed precision.
        batch: Chips per forward pass and view.
        settings: Weights by the folders' names, temperature, threshold and post-processing; None: equal weights, and
            the threshold of the first model.

    Raises:
        EnsembleError: There are no models, they disagree about their input, or the settings belong to other models.
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
        self.folders = list(folders)
        self._local = threading.local()
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
        """Card of the first model; everything about the input is the same in all."""
        return self.engines[0].card

    @property
    def threshold(self) -> float:
        """Probability above which a pixel is cloud."""
        return self._settings.threshold if self._settings else self.card.threshold

    @property
    def postprocess(self) -> Postprocess:
        """Post-processing of probabilities and masks."""
        return self._settings.postprocess if self._settings else NOTHING

    def prepare(self, chips: int) -> None:
        """Compile the networks for a run of so many chips, if that saves time, which it does only on GPUs."""
        side = self.card.chip_size
        views = len(tta.POLICIES[self.policy])
        if self.device == "cuda" and chips * views * side**2 >= LONG_RUN_PIXELS:
            for engine in self.engines:
                engine.prepare(torch.Size((self.batch * views, len(self.card.bands), side, side)))

    def probabilities(self, dn: NDArray[np.uint16], percentiles: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute the calibrated, weighted mean probability of cloud over models and views.

        Args:
            dn: N x B x H x W uint16 [DN], bands as in the card, of any height and width.
            percentiles: N x B x 2 float32, 2nd and 98th percentile of each band [DN].

        Returns:
            N x H x W float32 in [0, 1].

        Raises:
            EnsembleError: The number of bands is not that of the models.
            NotFiniteError: A model returns values that are not finite.
            DeviceMemoryError: The device's memory is too small for `batch` chips.
        """
        means = self._of_policy(dn, percentiles, np.float32, lambda mean, _: mean)
        return apply_temperature(means, self._settings.temperature) if self._settings else means

    def masks(self, dn: NDArray[np.uint16], percentiles: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Make masks with the settings; without post-processing, they are made on the device.

        Args:
            dn: As for `probabilities`.
            percentiles: As for `probabilities`.

        Returns:
            N x H x W uint8: 1 for cloud, 0 for clear, 255 where any band has no data.

        Raises:
            EnsembleError: As for `probabilities`, and also NotFiniteError and DeviceMemoryError.
        """
        if self.postprocess != NOTHING:
            probabilities = self.probabilities(dn, percentiles)
            return mask_of(probabilities, dn, self.threshold, self.card.nodata, self.postprocess)
        return self._masks_on_device(dn, percentiles)

    def _masks_on_device(self, dn: NDArray[np.uint16], percentiles: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Make masks without post-processing, N x H x W."""
        temperature = self._settings.temperature if self._settings else 1.0
        nodata = int(np.array(self.card.nodata, np.uint16).view(np.int16))  # torch can compare int16, but not uint16

        def mask(mean: Tensor, chips: Tensor) -> Tensor:
            if temperature != 1:
                mean = (torch.logit(mean, LEAST) / temperature).sigmoid_()
            cloud = (mean > self.threshold).to(torch.uint8)
            return cloud.masked_fill_((chips.view(torch.int16) == nodata).any(dim=1), IGNORE_INDEX)

        return self._of_policy(dn, percentiles, np.uint8, mask)

    def of_view(self, dn: NDArray[np.uint16], percentiles: NDArray[np.float32], view: tta.View) -> NDArray[np.float32]:
        """Compute `probabilities` for a single view, turned back, without the settings' temperature."""
        return self._each(dn, percentiles, np.float32, view.apply, lambda p, _: view.undo(p), lambda mean, _: mean)

    def _of_policy(
        self,
        dn: NDArray[np.uint16],
        percentiles: NDArray[np.float32],
        dtype: type[Number],
        finish: Callable[[Tensor, Tensor], Tensor],
    ) -> NDArray[Number]:
        policy = self.policy
        return self._each(
            dn, percentiles, dtype, lambda c: tta.views(c, policy), lambda p, n: tta.merge(p, policy, n), finish
        )

    @torch.inference_mode()
    def _each(
        self,
        dn: NDArray[np.uint16],
        percentiles: NDArray[np.float32],
        dtype: type[Number],
        look: Callable[[Tensor], Tensor],
        back: Callable[[Tensor, int], Tensor],
        finish: Callable[[Tensor, Tensor], Tensor],
    ) -> NDArray[Number]:
        """Process batch by batch: scale, look, compute, turn back, average, finish; return N x H x W."""
        if dn.shape[1] != len(self.card.bands):
            raise EnsembleError(f"the chips have {dn.shape[1]} bands, the model was made for {self.card.bands}")
        result = np.empty((len(dn), *dn.shape[2:]), dtype)
        with self._own_stream():
            for start in range(0, len(dn), self.batch):
                part = slice(start, start + self.batch)
                chips, bounds = (
                    torch.from_numpy(array[part]).to(self.device, non_blocking=True) for array in (dn, percentiles)
                )
                try:
                    mean = self._mean(look(self.normalize(chips, bounds)), len(chips), back)
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    raise DeviceMemoryError(
                        f"there is not enough memory on {self.device} for {len(chips)} chips of {dn.shape[2]} x "
                        f"{dn.shape[3]} pixels: lower compute.prediction_batch (--batch)"
                    ) from error
                finite = mean.flatten(1).isfinite().all(dim=1)
                result[part] = finish(mean, chips).cpu().numpy()
                if (lost := (~finite).nonzero()[:1]).numel():
                    row = int(lost)
                    self._refuse(start + row, look(self.normalize(chips[row : row + 1], bounds[row : row + 1])))
        return result

    def _mean(self, seen: Tensor, chips: int, back: Callable[[Tensor, int], Tensor]) -> Tensor:
        """Compute the weighted mean of the models' probabilities, N x H x W float32."""
        total: Tensor | None = None
        for engine, weight in zip(self.engines, self._weights, strict=True):
            logits = engine.logits(seen) / engine.card.temperature
            logits.masked_fill_(logits.isinf(), torch.nan)  # an infinite logit would be a certain probability
            part = weight * back(logits.sigmoid_(), chips)
            total = part if total is None else total + part
        assert total is not None  # there is always a model
        return total

    def _refuse(self, row: int, seen: Tensor) -> NoReturn:
        """Raise an error that names the model whose values for a chip are not finite."""
        lost = [
            folder
            for folder, engine in zip(self.folders, self.engines, strict=True)
            if not bool(engine.logits(seen).isfinite().all())
        ]
        raise NotFiniteError(
            row,
            f"the model {listed([str(folder) for folder in lost])} predicts probabilities that are not finite: its "
            "weights are damaged, or compute.precision (--precision) is too low for them",
        )

    def _own_stream(self) -> AbstractContextManager[Any]:
        """On a GPU, use a separate stream for this thread, so that copies run beside another thread's network."""
        if self.device != "cuda":
            return nullcontext()
        if not hasattr(self._local, "stream"):
            self._local.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        return torch.cuda.stream(self._local.stream)
