"""Requests by aiohttp, with refusals turned into this project's errors."""

from __future__ import annotations

import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from aiohttp import ClientError, ClientResponse, ClientSession, ClientSSLError, ClientTimeout, DummyCookieJar
from aiohttp.connector import TCPConnector
from yarl import URL

from cloudcover.config.secrets import redact
from cloudcover.sources.remote.errors import AccessError, DownloadError, MissingError, Retry

_REDIRECTS = 5
_RETRIED = {408, 425, 429, 500, 502, 503, 504}
_HEADERS = {"User-Agent": "cloudcover", "Accept-Encoding": "identity"}


class Connections:
    """Kept connections to any number of servers, direct or by the proxies of the environment.

    aiohttp neither retries nor follows redirects here: what counts as a failure, how long to wait, and that a signature
    never goes from https to http are decided by this project.
    """

    def __init__(self, timeout_s: float) -> None:
        """Makes them.

        Args:
            timeout_s: silence after which a connection counts as dead [s].
        """
        self._timeout = ClientTimeout(total=None, sock_connect=timeout_s, sock_read=timeout_s)
        self._session: ClientSession | None = None
        self._proxies = {scheme: url for scheme, url in getproxies().items() if scheme in ("http", "https")}
        self._proxy = cache(self._find_proxy)

    async def close(self) -> None:
        """Closes what is open."""
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def answer(self, method: str, url: str, name: str, headers: dict[str, str]) -> AsyncIterator[ClientResponse]:
        """Sends a request and follows redirects.

        Args:
            method: GET or HEAD.
            url: may hold a signature; it appears in no message.
            name: what to call the file in messages.
            headers: of the request.

        Yields:
            An answer of status 200, 206, 304 or 416; its body is not read yet.

        Raises:
            AccessError: 401 or 403.
            MissingError: 404 or 410.
            Retry: no answer, or a refusal that may pass.
            DownloadError: any other refusal.
        """
        for _ in range(_REDIRECTS):
            async with await self._send(method, url, headers) as response:
                if response.status not in (301, 302, 303, 307, 308):
                    if response.status not in (200, 206, 304, 416):
                        raise await _refusal(response, name)
                    yield response
                    return
                target = urljoin(url, response.headers.get("Location", ""))
            if urlsplit(url).scheme == "https" and urlsplit(target).scheme != "https":
                raise DownloadError(f"{name}: the server redirects from https to {urlsplit(target).scheme}; refused")
            url = target
        raise DownloadError(f"{name}: more than {_REDIRECTS} redirects")

    async def _send(self, method: str, url: str, headers: dict[str, str]) -> ClientResponse:
        target = urlsplit(url)
        if target.scheme not in ("http", "https") or not target.hostname:
            raise DownloadError(f"{redact(url)} is not an http or https address")
        if self._session is None:  # only within a running loop
            self._session = ClientSession(
                connector=TCPConnector(limit=0),  # whoever asks limits the requests
                cookie_jar=DummyCookieJar(),
                headers=_HEADERS,
                timeout=self._timeout,
                auto_decompress=False,
            )
        proxy = self._proxy(target.scheme, target.hostname)
        try:
            # A signature is encoded already; encoded once more it would not be the same.
            return await self._session.request(
                method, URL(url, encoded=True), headers=headers, allow_redirects=False, proxy=proxy
            )
        except (ClientSSLError, ssl.SSLError) as error:
            raise DownloadError(f"{target.hostname}: no safe connection: {words(error)}") from None
        except (ClientError, TimeoutError) as error:
            raise Retry(f"no answer from {target.hostname} ({words(error)})") from None

    def _find_proxy(self, scheme: str, host: str) -> str | None:
        url = self._proxies.get(scheme)
        if url is None or proxy_bypass(host):
            return None
        return url if "://" in url else f"http://{url}"


async def _refusal(response: ClientResponse, name: str) -> Exception:
    said = f"the server answered {response.status} {response.reason}{await _code(response)}"
    if response.status in (401, 403):
        return AccessError(
            f"{name}: {said}. Access is denied: if the source needs a SAS, it has expired or lacks the right to "
            "read and list; renew it and run again, finished files are kept"
        )
    if response.status in (404, 410):
        return MissingError(f"{name}: {said}; check data.url")
    if response.status in _RETRIED:
        return Retry(said, _pause(response.headers.get("Retry-After", "")))
    return DownloadError(f"{name}: {said}")


async def _code(response: ClientResponse) -> str:
    """The store's own name of an error, such as `AuthenticationFailed`; the rest of the page may hold secrets."""
    try:
        found = re.search(rb"<Code>(\w{1,60})</Code>", await response.content.read(1 << 16))
    except (ClientError, TimeoutError):
        return ""
    return f" ({found[1].decode()})" if found else ""


def _pause(header: str) -> float | None:
    """Seconds that the server asks to wait by `Retry-After`, a number or a date; None if it says nothing."""
    if header.strip().isdigit():
        return float(header)
    try:
        return max(0.0, (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):  # the latter: a date without its zone
        return None


def words(error: BaseException) -> str:
    """What an error says, without secrets."""
    return redact(getattr(error, "strerror", None) or str(error) or type(error).__name__)
