"""The limit on open files."""

from __future__ import annotations

import resource

WANTED = 4096
"""Enough open files for all commands; the default of some systems is 256."""


def open_file_limit() -> int:
    """Raise the limit on open files as far as permitted, to at most `WANTED`, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = WANTED if hard == resource.RLIM_INFINITY else min(WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return max(most, soft)
