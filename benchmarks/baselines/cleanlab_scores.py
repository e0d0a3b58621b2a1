"""Label quality by cleanlab (AGPL, so it lives in an environment of its own and is never a dependency).

    python cleanlab_scores.py ARRAYS.npz SCORES.npy

ARRAYS holds `labels` (N x H x W, 0 or 1) and `cloud` (N x H x W, out-of-fold probability of cloud); SCORES gets N label
quality scores, low = suspicious, of `cleanlab.segmentation.rank.get_label_quality_scores` as it comes (soft minimum).
"""

from __future__ import annotations

import sys

import numpy as np
from cleanlab.segmentation.rank import get_label_quality_scores


def main() -> None:
    """Scores the arrays."""
    arrays = np.load(sys.argv[1])
    cloud = arrays["cloud"].astype(np.float32)
    scores, _ = get_label_quality_scores(
        arrays["labels"].astype(np.int64), np.stack([1 - cloud, cloud], axis=1), verbose=False
    )
    np.save(sys.argv[2], scores)


if __name__ == "__main__":
    main()
