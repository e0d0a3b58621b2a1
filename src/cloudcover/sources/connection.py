"""Requests by urllib3, with refusals turned into this project's errors."""

from __future__ import annotations

import logging
import re
from typing import Any
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.exceptions import HTTPError, InvalidHeader, SSLError

from cloudcover.sources.errors import AccessError, DownloadError, MissingError, Retry
from cloudcover.sources.secrets import redact

_REDIRECTS = 5
_RETRIED = {408, 425, 429, 500, 502, 503, 504}

# On the level DEBUG urllib3 writes the whole address of each request, and with it the signature.
logging.getLogger("urllib3").setLevel(logging.INFO)


class Connections:
    """Kept connections to any number of servers, direct or by the proxies of the environment; for many threads.

    urllib3 neither retries nor follows redirects here: what counts as a failure, how long to wait, and that a signature
    never goes from https to http are decided by this project.
    """

    def __init__(self, timeout_s: float, most: int = 64) -> None:
        """Makes the pools.

        Args:
            timeout_s: silence after which a connection counts as dead [s].
            most: kept connections to one server.
        """
        options: dict[str, Any] = {"timeout": urllib3.Timeout(timeout_s), "maxsize": most, "retries": False}
        self._direct = urllib3.PoolManager(**options)
        proxies = {scheme: url for scheme, url in getproxies().items() if scheme in ("http", "https")}
        self._proxies = {scheme: _proxy(url, options) for scheme, url in proxies.items()}

    def close(self) -> None:
        """Closes what is open."""
        for pool in (self._direct, *self._proxies.values()):
            pool.clear()

    def answer(self, method: str, url: str, name: str, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        """Sends a request and follows redirects.

        Args:
            method: GET or HEAD.
            url: may hold a signature; it appears in no message.
            name: what to call the file in messages.
            headers: of the request.

        Returns:
            An answer of status 200, 206, 304 or 416, to be used as a context; its body is not read yet.

        Raises:
            AccessError: 401 or 403.
            MissingError: 404 or 410.
            Retry: no answer, or a refusal that may pass.
            DownloadError: any other refusal.
        """
        for _ in range(_REDIRECTS):
            response = self._send(method, url, headers)
            if response.status not in (301, 302, 303, 307, 308):
                break
            response.drain_conn()
            target = urljoin(url, response.headers.get("Location", ""))
            if urlsplit(url).scheme == "https" and urlsplit(target).scheme != "https":
                raise DownloadError(f"{name}: the server redirects from https to {urlsplit(target).scheme}; refused")
            url = target
        else:
            raise DownloadError(f"{name}: more than {_REDIRECTS} redirects")
        if response.status not in (200, 206, 304, 416):
            raise _refusal(response, name)
        return response

    def _send(self, method: str, url: str, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        target = urlsplit(url)
        if target.scheme not in ("http", "https") or not target.hostname:
            raise DownloadError(f"{redact(url)} is not an http or https address")
        proxy = self._proxies.get(target.scheme)
        if proxy is not None and proxy_bypass(target.hostname):
            proxy = None
        # What arrived of a body that was cut is worth having: whether all of it came is looked at afterwards.
        body: dict[str, Any] = {"preload_content": False, "decode_content": False, "enforce_content_length": False}
        sent = {"User-Agent": "cloudcover", "Accept-Encoding": "identity", **headers}
        try:
            return (proxy or self._direct).request(method, url, headers=sent, redirect=False, **body)
        except SSLError as error:
            raise DownloadError(f"{target.hostname}: no safe connection: {words(error)}") from None
        except HTTPError as error:
            raise Retry(f"no answer from {target.hostname} ({words(error)})") from None


def _proxy(url: str, options: dict[str, Any]) -> urllib3.ProxyManager:
    parts = urlsplit(url if "://" in url else f"http://{url}")
    user, _, host = parts.netloc.rpartition("@")
    headers = urllib3.make_headers(proxy_basic_auth=user) if user else None
    return urllib3.ProxyManager(f"{parts.scheme}://{host}", proxy_headers=headers, **options)


def _refusal(response: urllib3.BaseHTTPResponse, name: str) -> Exception:
    said = f"the server answered {response.status} {response.reason}{_code(response)}"
    if response.status in (401, 403):
        return AccessError(
            f"{name}: {said}. Access is denied: if the source needs a SAS, it has expired or lacks the right to "
            "read and list; renew it and run again, finished files are kept"
        )
    if response.status in (404, 410):
        return MissingError(f"{name}: {said}; check data.url")
    if response.status in _RETRIED:
        return Retry(said, _pause(response))
    return DownloadError(f"{name}: {said}")


def _code(response: urllib3.BaseHTTPResponse) -> str:
    """The store's own name of an error, such as `AuthenticationFailed`; the rest of the page may hold secrets."""
    try:
        with response:
            found = re.search(rb"<Code>(\w{1,60})</Code>", response.read(1 << 16))
            response.drain_conn()
    except HTTPError:
        return ""
    return f" ({found[1].decode()})" if found else ""


def _pause(response: urllib3.BaseHTTPResponse) -> float | None:
    """Seconds that the server asks to wait, or None."""
    try:
        return urllib3.Retry().get_retry_after(response)
    except InvalidHeader:
        return None


def words(error: BaseException) -> str:
    """What an error says, without secrets."""
    return redact(getattr(error, "strerror", None) or str(error) or type(error).__name__)
