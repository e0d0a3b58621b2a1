"""How many files a process may have open."""

from __future__ import annotations

import resource

WANTED = 4096
"""Open files that are enough for everything here; some systems begin with 256."""


def open_file_limit() -> int:
    """Raise the limit on open files as far as this process may, to `WANTED` at most, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = WANTED if hard == resource.RLIM_INFINITY else min(WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return max(most, soft)
