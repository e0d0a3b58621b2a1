"""What can go wrong with a download."""

from __future__ import annotations


class DownloadError(OSError):
    """A file cannot be fetched; the message says which, why, and what to do. It never holds a secret."""


class AccessError(DownloadError):
    """The server refuses access (401, 403): trying again cannot help."""


class MissingError(DownloadError):
    """The server has no such file (404, 410)."""


class ContentError(DownloadError):
    """What arrived is not what should be there: another hash, another length, an error page."""


class Retry(Exception):
    """An attempt failed in a way that may pass; `advanced`: it came further than any before, so it does not count."""

    def __init__(self, reason: str, after_s: float | None = None, advanced: bool = False) -> None:
        super().__init__(reason)
        self.after_s = after_s
        self.advanced = advanced
