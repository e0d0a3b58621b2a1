"""Errors of downloads; no message contains a secret."""

from __future__ import annotations


class ArchiveError(ValueError):
    """An archive cannot be used; the message names it, what is wrong and where."""


class DownloadError(OSError):
    """A file cannot be fetched or is not the expected one; the message names it, the cause and the remedy."""


class AccessError(DownloadError):
    """The server refuses access (401, 403), so another attempt cannot help."""


class MissingError(DownloadError):
    """There is no such file (404, 410)."""


def refusal(status: int, said: str, name: str) -> DownloadError:
    """Return the error for a server's response to the request for `name`, such as `404 Not Found`."""
    if status in (401, 403):
        return AccessError(
            f"{name}: the server answered {said}. Access is denied: if the source needs a SAS, it has expired or lacks "
            "the right to read and list: renew it and run again, finished files are kept. A public folder that cannot "
            "be listed can be read with source: http"
        )
    kind = MissingError if status in (404, 410) else DownloadError
    return kind(f"{name}: the server answered {said}; check data.url and the connection")
