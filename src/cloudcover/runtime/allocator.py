"""Reuse of large memory buffers, which glibc otherwise returns to the system and requests again.

A training step on a CPU allocates the same buffers as the previous step, and so does each batch of a prediction.
Requesting them again costs a page fault for every 4 KiB: on chips of 96 pixels with a border of 16, a sixth of the time
of a step and a third of that of a prediction.
"""

from __future__ import annotations

import ctypes

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3
"""Parameters of `mallopt`, with the numbers from `malloc.h`."""
KEPT = 2**30
"""Buffers up to this size are reused, and up to this much unused memory is kept [bytes]."""


def keep_buffers() -> bool:
    """Keep freed buffers of this process for reuse; return False if the C library has no such setting."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # macOS, musl, Windows
        return False
    settings = ((MMAP_THRESHOLD, KEPT), (TRIM_THRESHOLD, KEPT), (TOP_PAD, 2**26))
    done = [mallopt(name, value) == 1 for name, value in settings]
    return all(done)
