"""What can go wrong with a download."""

from __future__ import annotations


class DownloadError(OSError):
    """A file cannot be fetched. The message names it, the cause and the remedy, and never holds a secret."""


class AccessError(DownloadError):
    """The server refuses access (401, 403), so another attempt cannot help."""


class MissingError(DownloadError):
    """There is no such file (404, 410)."""


class ContentError(DownloadError):
    """What arrived is not what should be there: another length, an error page, a TIFF of another kind."""


def refusal(status: int, said: str, name: str) -> DownloadError:
    """The error for what a server answered to the request for `name`, such as `404 Not Found`."""
    if status in (401, 403):
        return AccessError(
            f"{name}: the server answered {said}. Access is denied: if the source needs a SAS, it has expired or lacks "
            "the right to read and list; renew it and run again, finished files are kept. A public folder without "
            "listing can be read by source: http"
        )
    kind = MissingError if status in (404, 410) else DownloadError
    return kind(f"{name}: the server answered {said}; check data.url and the connection")
