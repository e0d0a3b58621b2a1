"""Conversion of digital numbers to the network's input.

Both scales are an affine map per band, x = DN · a + b:

- reflectance: a = 1 / (10,000 · std), b = -mean / std, equal for all chips, which preserves absolute brightness;
- percentile: a = 1 / (p98 - p02), b = -p02 · a, of each chip and band, then clipped to [0, 1]; a chip whose percentiles
  lie less than 1 DN apart (a constant one) or are undefined (one without data) gets 0.

In both, pixels without data become 0, and the output is finite for any input.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cloudcover.config.sections import DataParams, InputParams
from cloudcover.data.values import DN_PER_REFLECTANCE

Digital = Tensor | NDArray[np.generic] | list[NDArray[np.uint16]]
"""Digital numbers of a batch: N x B x H x W of any real dtype, or N views of the store, B x H x W
(`ChipStore.mapped`)."""


class Normalize(nn.Module):
    """The scaling of chip batches; it has no weights, so it adds nothing to a model's state.

    Attributes:
        needs_percentiles: Whether calls need the percentiles of the chips.
    """

    def __init__(self, params: InputParams, data: DataParams, *, reuse: bool = False) -> None:
        """Prepare the scale of `data.bands`.

        Args:
            params: Kind of scale and, for reflectance, mean and std of each band.
            data: Bands and nodata value.
            reuse: Return the same memory at every call. On a CPU, page faults of fresh memory cost more than the
                arithmetic, but a batch is then only valid until the next call.
        """
        super().__init__()
        self.needs_percentiles = params.scale == "percentile"
        self.bands = len(data.bands)
        self.nodata = data.nodata
        self._reuse = reuse
        self._memory: dict[str, Tensor] = {}
        if not self.needs_percentiles:
            mean, std = (torch.tensor(v, dtype=torch.float64) for v in (params.mean, params.std))
            if not len(mean) == len(std) == self.bands:
                raise ValueError(
                    f"input: {len(mean)} means and {len(std)} stds for the {self.bands} bands {data.bands}"
                )
            if not bool((std > 0).all()):
                raise ValueError(f"input.std must be positive, but is {params.std}")
            gain = 1 / (DN_PER_REFLECTANCE * std)
            self.register_buffer("gain", gain.float(), persistent=False)
            self.register_buffer("offset", (-mean / std).float(), persistent=False)

    @torch.no_grad()
    def forward(self, dn: Digital, percentiles: Tensor | NDArray[np.generic] | None = None) -> Tensor:
        """Scale a batch.

        Args:
            dn: Batch as in `Digital` [DN]; not changed. NaN is treated as nodata, infinity as the largest DN.
            percentiles: N x B x 2, 2nd and 98th percentile [DN] (`ChipStore.percentiles`); needed only by the
                percentile scale.

        Returns:
            N x B x H x W float32 on the device of `dn`, finite.

        Raises:
            ValueError: The number of bands is wrong, or the percentiles are missing or have a wrong shape.
        """
        chips = dn if isinstance(dn, list) else torch.as_tensor(dn)
        device = chips.device if isinstance(chips, Tensor) else torch.device("cpu")
        shape = torch.Size((len(chips), *chips[0].shape))
        if len(shape) != 4 or shape[1] != self.bands:
            raise ValueError(f"expected N x {self.bands} x H x W, got {' x '.join(map(str, shape))}")
        gain, offset = self._affine(len(chips), device, percentiles)
        scaled = self._empty("scaled", shape, device)
        if isinstance(chips, Tensor) and device.type != "cpu":
            self._load(chips, scaled)
            valid = torch.ne(scaled, self.nodata, out=self._empty("valid", shape, device))
            scaled.mul_(gain[..., None, None]).add_(offset[..., None, None])
            self._finish(scaled, valid)
        else:
            self._scale_planes(chips, scaled, gain, offset)
        return scaled

    def _scale_planes(
        self, chips: Tensor | list[NDArray[np.uint16]], scaled: Tensor, gain: Tensor, offset: Tensor
    ) -> None:
        """Scale plane by plane, so that data stays in the CPU's cache between passes."""
        arrays = chips.numpy() if isinstance(chips, Tensor) and chips.dtype == torch.uint16 else chips
        valid = self._empty("valid", scaled.shape[2:], scaled.device)
        factors = zip(gain.flatten().tolist(), offset.flatten(), strict=True)
        planes = (plane for chip in arrays for plane in chip)
        for source, out, (g, o) in zip(planes, scaled.flatten(0, 1), factors, strict=True):
            if isinstance(source, Tensor):
                gaps = True
                self._load(source, out)
            else:
                # Finding the minimum is faster than searching for a value; clearing without gaps has no effect.
                # In memory order, however the plane is turned, so that the conversion reads from the cache.
                rows, columns = (1 if stride > 0 else -1 for stride in source.strides)
                gaps = int(source[::rows, ::columns].min()) <= self.nodata
                np.copyto(out.numpy(), source)  # a quarter faster than torch
            if gaps:
                torch.ne(out, self.nodata, out=valid)
            torch.add(o, out, alpha=g, out=out)
            self._finish(out, valid if gaps else None)

    def _load(self, source: Tensor, out: Tensor) -> None:
        out.copy_(source)
        if source.is_floating_point():
            out.nan_to_num_(nan=float(self.nodata), posinf=65535.0, neginf=0.0)

    def _finish(self, out: Tensor, valid: Tensor | None) -> None:
        """Clip, and clear pixels without data by a multiplication: masked_fill is 5 to 20 times slower on a CPU."""
        if self.needs_percentiles:
            out.clamp_(0, 1)
        if valid is not None:
            out.mul_(valid)

    def _affine(
        self, chips: int, device: torch.device, percentiles: Tensor | NDArray[np.generic] | None
    ) -> tuple[Tensor, Tensor]:
        """Return gain and offset of each plane: N x B."""
        if not self.needs_percentiles:
            gain, offset = (self.get_buffer(name).to(device) for name in ("gain", "offset"))
            return gain.expand(chips, -1), offset.expand(chips, -1)
        if percentiles is None or tuple(percentiles.shape) != (chips, self.bands, 2):
            found = "none" if percentiles is None else " x ".join(map(str, percentiles.shape))
            raise ValueError(f"the percentile scale needs percentiles of {chips} x {self.bands} x 2, got {found}")
        low, high = torch.as_tensor(percentiles).to(device, torch.float32).unbind(-1)
        span = high - low
        usable = span.isfinite() & (span >= 1)
        gain = torch.where(usable, 1 / span, 0.0)
        offset = torch.where(usable, -low * gain, 0.0)
        return gain, offset

    def _empty(self, name: str, shape: torch.Size, device: torch.device) -> Tensor:
        """Return uninitialised float32 memory, the same at each call if `reuse`."""
        if not self._reuse:
            return torch.empty(shape, dtype=torch.float32, device=device)
        memory = self._memory.get(name)
        if memory is None or memory.numel() < shape.numel() or memory.device != device:
            memory = self._memory[name] = torch.empty(shape.numel(), dtype=torch.float32, device=device)
        return memory[: shape.numel()].view(shape)
