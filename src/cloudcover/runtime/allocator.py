"""Keeping the memory of large buffers, which glibc otherwise returns to the system and fetches again.

A training step on a CPU allocates the same buffers as the step before. Fetching them again costs a page fault for every
4 KiB: a sixth of the time of a step on chips of 96 pixels with a border of 16.
"""

from __future__ import annotations

import ctypes

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3
"""Parameters of `mallopt`, as `malloc.h` numbers them."""
KEPT = 2**30
"""Buffers up to this size are kept, and so much memory is left unused before any is returned [bytes]."""


def keep_buffers() -> bool:
    """Let this process keep freed buffers for the next ones; False where the C library has no such setting."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # macOS, musl, Windows
        return False
    settings = ((MMAP_THRESHOLD, KEPT), (TRIM_THRESHOLD, KEPT), (TOP_PAD, 2**26))
    done = [mallopt(name, value) == 1 for name, value in settings]
    return all(done)
