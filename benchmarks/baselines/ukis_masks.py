"""Cloud masks by ukis-csmask's four-band networks (Apache-2.0), in a separate environment.

    python ukis_masks.py CHIPS.npz MASKS.npz [l2a|l1c]

CHIPS holds uint16 arrays B02, B03, B04, B08 x H x W [DN = reflectance x 10,000] by chip; MASKS gets uint8 arrays of
{0, 1}. The network for Level-2A is the default; `l1c` is the one for top-of-atmosphere reflectance.
"""

from __future__ import annotations

import sys

import numpy as np
from ukis_csmask.mask import CSmask

CLOUD = 1


def main() -> None:
    """Mask the chips."""
    level = sys.argv[3] if len(sys.argv) > 3 else "l2a"
    masks = {}
    for name, chip in np.load(sys.argv[1]).items():
        image = np.moveaxis(chip, 0, 2).astype(np.float32) / 10_000
        result = CSmask(image, band_order=["blue", "green", "red", "nir"], product_level=level)
        masks[name] = (np.asarray(result.csm)[..., 0] == CLOUD).astype(np.uint8)
    np.savez(sys.argv[2], **masks)


if __name__ == "__main__":
    main()
