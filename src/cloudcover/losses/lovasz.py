r"""The Lovász hinge and the Lovász-softmax, surrogates of the Jaccard loss.

Berman et al. 2018, https://arxiv.org/abs/1705.08790. Let s be a pixel's logit, y = ±1 its label, and e its error:

    hinge    e = max(0, 1 - y s), convex in s;
    softmax  e = 1 - sigmoid(y s), the probability that the right class misses.

(With one logit the Lovász-softmax is that of the class cloud alone, as in the authors' code.) P is the number of
positive pixels; for a threshold t, p(t) and n(t) are the numbers of positive and negative pixels with e > t. If exactly
those pixels were wrong, the Jaccard loss would be

    J(p, n) = 1 - (P - p) / (P + n),    J(0, 0) = 0,

and the Lovász extension averages it over all thresholds: L = ∫ J(p(t), n(t)) dt from 0 to ∞ = Σ e g, where the weight
g of a pixel is the step of J when the pixel joins the wrong ones, in order of decreasing error. It is also the
gradient of L by e. The functions `…_sorted` do that literally.

Soft labels. J is a function of sets, so a pixel is in or out. A pixel of weight w and soft label c therefore counts as
two: a positive one of weight c w and a negative one of weight (1 - c) w with the same logit. That is the loss of the
set in which every pixel is repeated with labels in the proportion c, so nothing is rounded to a class, hard labels are
the special case, and the hinge stays convex. (A mean of the losses of both hard labels is not defined for one pixel,
and for all labels at once it would be a mean over 2^pixels sets.) As with hard labels that contradict each other, the
minimum is a mask and not the probability c: in `bce_lovasz`, the added cross-entropy calibrates.

The histogram needs no order inside narrow bins of errors: with a histogram of the errors for each class, (p, n) above
a bin and (p', n') with the bin follow from suffix sums. The step of J over the bin is shared among its pixels: the
mean of what they get when the positive ones come first and when the negative ones do,

    per positive pixel  (1 / (P + n) + 1 / (P + n')) / 2,
    per negative pixel  (P - (p + p') / 2) / ((P + n) (P + n')).

Then H = Σ e g as before, with one g per bin and class.

Error bound. Bins are the leading bits of a float32 number, its exponent and `BITS` of the mantissa, so an error e and
the lower edge q of its bin obey q ≤ e ≤ (1 + d) q with d = 2^-BITS. J is submodular, hence L is the largest Σ e g over
all orders, and H, a mean over some, is at most L. For errors moved to their lower edges both agree, since the order of
ties does not matter, so H ≥ L(q) ≥ L(e / (1 + d)) = L / (1 + d). That is, H is at most 0.1 % below L, whatever the
size of the logits; in practice the differences inside bins cancel and far less is left. (Errors below 2^-24, which no
float32 hinge has, count as 0; those above 2^12 share a bin.)

Sums over bins are exact, while the sort's running sums of millions of float32 steps are not: the gradient comes out
closer to that of a float64 sort.

Counting. A CPU adds each pixel to its bin. A GPU would need atomic additions for that: slow where many pixels share a
bin, and replaced by something slower still when torch must be deterministic. There the bins are sorted instead, counts
are differences of positions, and weights are added as whole numbers, so that their sums do not depend on the order.
Finer bins cost nothing then (`BITS_OF_SORT`).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from cloudcover.data.chips import IGNORE_INDEX
from cloudcover.losses.targets import check, per_pixel

BITS = 10
BITS_OF_SORT = 13
_UNITS = 1 << 31
"""Whole-number weight of the heaviest pixel where bins are counted by sorting."""
_TINY = 1e-30
_SMALLEST, _LARGEST = -24, 12
"""Exponents of two: smaller errors are 0, larger ones share the last bin."""
_CLASSES = 3  # negative, positive, unknown

Link = Literal["hinge", "softmax"]
"""The function from logit to error."""


def lovasz_hinge(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Compute the Lovász hinge over all valid pixels of a batch, from a histogram of the errors.

    Args:
        logits: N x 1 x H x W.
        target: N x H x W, hard or soft (see `cloudcover.losses.targets`); 255 is left out.
        weight: N or N x H x W, or None for 1. P, p and n are sums of weights, so a chip of weight 2 counts like two
            chips, and one of weight 0 is ignored.

    Returns:
        A float32 scalar, 0 with zero gradient if no pixel is valid.

    Raises:
        ValueError: The shapes do not match.
    """
    check(logits, target, weight)
    return _by_histogram(logits, target, weight, "hinge")


def lovasz_softmax(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Compute the Lovász-softmax of the class cloud from a histogram; see `lovasz_hinge`."""
    check(logits, target, weight)
    return _by_histogram(logits, target, weight, "softmax")


def lovasz_hinge_sorted(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Compute the Lovász hinge by sorting all errors, in the dtype of the logits.

    Exact but slow, the reference for tests. Arguments and errors as for `lovasz_hinge`.
    """
    return _sorted(logits, target, weight, "hinge")


def lovasz_softmax_sorted(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Compute the Lovász-softmax by sorting, see `lovasz_hinge_sorted`."""
    return _sorted(logits, target, weight, "softmax")


def _sorted(logits: Tensor, target: Tensor, weight: Tensor | None, link: Link) -> Tensor:
    check(logits, target, weight)
    valid = target != IGNORE_INDEX
    scores = logits.squeeze(1)[valid]
    cloud = target[valid].to(scores.dtype)
    pixel_weight = torch.ones_like(cloud) if weight is None else per_pixel(weight, target)[valid].to(scores.dtype)
    if target.is_floating_point():
        pixel_weight = torch.cat([pixel_weight * cloud, pixel_weight * (1 - cloud)])
        cloud = torch.cat([torch.ones_like(cloud), torch.zeros_like(cloud)])
        scores = torch.cat([scores, scores])
    counted = pixel_weight > 0
    cloud, pixel_weight = cloud[counted], pixel_weight[counted]
    error, order = torch.sort(_errors(scores[counted], 2 * cloud - 1, link), descending=True, stable=True)
    positive, negative = (cloud * pixel_weight)[order], ((1 - cloud) * pixel_weight)[order]
    total = positive.sum()
    jaccard = 1 - (total - positive.cumsum(0)) / (total + negative.cumsum(0))
    return (error * torch.diff(jaccard, prepend=jaccard.new_zeros(1))).sum()


def _errors(scores: Tensor, sign: Tensor, link: Link) -> Tensor:
    if link == "hinge":
        return torch.addcmul(scores.new_ones(()), scores, sign, value=-1).relu_()
    return torch.sigmoid(-scores * sign)


def _by_histogram(logits: Tensor, target: Tensor, weight: Tensor | None, link: Link) -> Tensor:
    loss: Tensor = _Histogram.apply(logits, target, weight, link, logits.is_cuda)  # type: ignore[no-untyped-call]
    return loss


class _Histogram(torch.autograd.Function):
    """An autograd function that computes loss and gradient together, because both need the same table of weights."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, target: Tensor, weight: Tensor | None, link: Link, sort: bool = False
    ) -> Tensor:
        """Compute `lovasz_hinge` or `lovasz_softmax`; with `sort`, bins are counted by sorting (see the module)."""
        scores = logits.reshape(-1).float()
        bits = BITS_OF_SORT if sort else BITS
        copies = _copies(target, None if weight is None else per_pixel(weight, target).reshape(-1))
        errors = [_errors(scores, sign, link) for sign, _, _ in copies]
        keys = [
            _bins(e, bits).add_(kind, alpha=_bin_count(bits)) for e, (_, kind, _) in zip(errors, copies, strict=True)
        ]
        count, unit = _count, scores.new_ones((), dtype=torch.float64)
        if sort:
            count, unit = _count_sorted, _UNITS / (unit if weight is None else weight.amax().double().clamp_min(_TINY))
        counts = [count(key, w, unit, bits) for key, (_, _, w) in zip(keys, copies, strict=True)]
        table = _weights(counts[0] if len(counts) == 1 else counts[0] + counts[1], unit)
        loss = scores.new_zeros((), dtype=torch.float64)
        gradient = None
        for error, key, (sign, _, pixel_weight) in zip(errors, keys, copies, strict=True):
            share = table.index_select(0, key)
            if pixel_weight is not None:
                share.mul_(pixel_weight)
            slope = sign if link == "hinge" else (1 - error).mul_(error).mul_(sign)
            loss += error.mul_(share).sum(dtype=torch.float64)
            part = share.mul_(slope).neg_()
            gradient = part if gradient is None else gradient.add_(part)
        if ctx.needs_input_grad[0]:
            assert gradient is not None  # there is always a copy
            ctx.save_for_backward(gradient.to(logits.dtype).view_as(logits))
        return loss.float()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        (share,) = ctx.saved_tensors
        return share * gradient, None, None, None, None


def _copies(target: Tensor, pixel_weight: Tensor | None) -> list[tuple[Tensor, Tensor, Tensor | None]]:
    """Return sign, class and weight of each pixel; soft labels give a positive and a negative copy of each pixel."""
    labels = target.reshape(-1)
    if not target.is_floating_point():
        return [(labels.float().mul_(2).sub_(1), labels.clamp(max=_CLASSES - 1).to(torch.int32), pixel_weight)]
    one = torch.ones((), device=labels.device)
    valid = (labels != IGNORE_INDEX).float()
    cloud = labels.float() * valid
    clear = valid - cloud
    if pixel_weight is not None:
        cloud, clear = cloud * pixel_weight, clear * pixel_weight
    return [(one, one.int(), cloud), (-one, 0 * one.int(), clear)]


def _bin_count(bits: int) -> int:
    return (_LARGEST - _SMALLEST) << bits


def _bins(error: Tensor, bits: int) -> Tensor:
    """Return the bin of each error >= 0 as int32; bin 0 holds the zeros. NaN falls into the last bin."""
    first = (127 + _SMALLEST) << bits  # 127 is the bias of a float32 exponent
    return (error.view(torch.int32) >> (23 - bits)).sub_(first - 1).clamp_(0, _bin_count(bits) - 1)


def _count(key: Tensor, pixel_weight: Tensor | None, unit: Tensor, bits: int) -> Tensor:
    """Sum the weights of the pixels by class and bin: 3 x bins float64, in the unit 1."""
    kind = torch.int32 if pixel_weight is None else torch.float64
    ones = (
        torch.ones((), dtype=kind, device=key.device).expand(len(key))
        if pixel_weight is None
        else pixel_weight.to(kind)
    )
    counts = torch.zeros(_CLASSES * _bin_count(bits), dtype=kind, device=key.device).index_add_(0, key, ones)
    return counts.view(_CLASSES, -1).double()


def _count_sorted(key: Tensor, pixel_weight: Tensor | None, unit: Tensor, bits: int) -> Tensor:
    """Count as `_count`, by sorting: int64, in units of a weight of 1 / `unit`, independent of the order of pixels."""
    ordered, order = key.sort()
    edges = torch.arange(_CLASSES * _bin_count(bits) + 1, dtype=key.dtype, device=key.device)
    edges = torch.searchsorted(ordered, edges)
    if pixel_weight is None:
        return (edges.diff() * _UNITS).view(_CLASSES, -1)
    whole = pixel_weight.index_select(0, order).double().mul_(unit).round_().long()
    return F.pad(whole.cumsum(0), (1, 0)).index_select(0, edges).diff().view(_CLASSES, -1)


def _weights(counts: Tensor, unit: Tensor) -> Tensor:
    """Return the weight g of a pixel of weight 1 by class and bin: 3·bins float32, 0 in bin 0 and where unknown."""
    total = counts[1].sum().double()
    wrong = counts[:2].clone()
    wrong[:, 0] = 0
    n1, p1 = after = wrong.flip(1).cumsum(1).flip(1).double()
    n0, p0 = F.pad(after[:, 1:], (0, 1))  # not `after - wrong`: the count above the largest error must be exactly 0
    union0, union1 = total + n0, total + n1
    per_positive = (1 / union0 + 1 / union1) / 2
    # Without a positive pixel, J steps from 0 to 1 at the largest error, and its bin shares the whole step.
    per_negative = torch.where(union0 > 0, (total - (p0 + p1) / 2) / (union0 * union1), 1 / counts[0])
    table = torch.stack([per_negative, per_positive, torch.zeros_like(per_positive)]).mul_(unit).float()
    table[:, 0] = 0
    return table.view(-1).nan_to_num_(0, posinf=0)
