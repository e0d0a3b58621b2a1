"""Detection of a lost offset: Sentinel-2 products of baseline 04.00 and later add 1000 DN to every value.

Under full cloud cover all bands of a plain chip can begin near 1000 DN as well. The offset belongs to a whole product,
though, so a single chip of the product that begins lower shows that there is none.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloudcover.data.values import counted

DARK, BRIGHT = 950, 2000
"""Range in which the values of all bands begin if 1000 DN were added: minimum and upper bound [DN]."""
DARKEST = 0.001
"""Share of a band's pixels that may be darker than that, because single dark pixels are not significant."""
TOLERATED = 0.1
"""Share of a product's chips that may begin below `DARK` despite an offset, as dark water does [0-1]."""
ENOUGH = 4
"""Number of chips near 1000 DN that suffice to suspect a product, whatever the rest of the set looks like."""
UNUSUAL = 0.1
"""Share of the other chips above which they are suspected; in sets without offset, 5 to 8 % begin near 1000 DN."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evidence:
    """Observations of the chips or images of one product, which have the same offset.

    Attributes:
        suspects: Names of those for which `suspected_offset` is true.
        near: Number of chips, or windows of a large image, for which it is true.
        dark: Number of chips that begin below `DARK`.
        chips: Number of all chips or images.
    """

    suspects: Sequence[str]
    near: int
    dark: int
    chips: int

    @property
    def refuted(self) -> bool:
        """Whether dark chips show that the product has no offset."""
        return self.dark > TOLERATED * (self.near + self.dark)


def suspected_offset(bands: NDArray[np.uint16], nodata: int) -> bool:
    """Return whether all bands begin near 1000 DN, as with a lost offset or under full cloud cover.

    Args:
        bands: B x H x W uint16 [DN], neither scaled nor shifted.
        nodata: Value of pixels without data [DN].
    """
    for pixels in bands:
        empty = np.count_nonzero(pixels == nodata)
        few = DARKEST * (pixels.size - empty)
        low, high = (np.count_nonzero(pixels < end) - (empty if nodata < end else 0) for end in (DARK, BRIGHT))
        if low > few or high <= few:
            return False
    return True


def credible(products: Iterable[Evidence]) -> list[str]:
    """Return the names of the chips whose offset seems to be lost, in the order of the products.

    Products with `ENOUGH` suspects and no evidence to the contrary are judged by themselves. The chips of all others
    are judged together, by the share of suspects.
    """
    found, others = [], []
    for product in products:
        if product.near >= ENOUGH and not product.refuted:
            found.append(product)
        else:
            others.append(product)
    doubtful = [product for product in others if product.suspects and not product.refuted]
    if sum(len(p.suspects) for p in doubtful) > UNUSUAL * sum(p.chips for p in others):
        found += doubtful
    return [chip for product in found for chip in product.suspects]


def warn_of_offsets(products: Iterable[Evidence]) -> None:
    """Log a warning that names the chips whose offset seems to be lost."""
    if suspects := credible(products):
        log.warning(
            "all bands of %s begin near 1000 DN: these look like Sentinel-2 products of processing baseline 04.00 or "
            "later, which add 1000 to every value. If they are, set data.offset: 1000 in params.yaml (`cloudcover "
            "predict --offset 1000`); otherwise they will look cloudier than they are",
            counted(suspects),
        )
