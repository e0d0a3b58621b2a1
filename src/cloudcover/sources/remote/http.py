"""Files of a web folder by requests: resumed where they broke off, at the server's pace."""

from __future__ import annotations

import base64
import hashlib
import random
import threading
import time
from collections.abc import Callable
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, urljoin

import requests
from requests.adapters import HTTPAdapter
from urllib3 import Retry
from urllib3.exceptions import HTTPError, InvalidHeader

from cloudcover.config.secrets import redact
from cloudcover.sources.remote.errors import DownloadError, MissingError, refusal
from cloudcover.sources.remote.stores import FOLDERS, TABLES, Listed, Store, plain_etag

T = TypeVar("T")

ATTEMPTS = 8
"""Attempts in a row that may fail without a further byte of the file."""
TIMEOUT_S = 60.0
"""Silence after which a connection counts as dead [s]."""
BACKOFF_S = 0.25
"""Mean wait after the first failure, doubled with each further one up to 30 s [s]."""
LONGEST_WAIT_S = 600.0
"""A server that asks for a longer pause is not waited for [s]."""


class _Passing(Exception):
    """An attempt failed in a way that may pass; `advanced`: it came further than any before, so it does not count."""

    def __init__(self, reason: str, after_s: float | None = None, advanced: bool = False) -> None:
        super().__init__(reason)
        self.after_s = after_s
        self.advanced = advanced


class WebFolder(Store):
    """The files below an HTTP address."""

    lists = False

    def __init__(self, url: str) -> None:
        self._root = url.rstrip("/")
        self._stopped = threading.Event()
        self._not_before = 0.0
        self._session = requests.Session()
        self._session.headers.update({"User-Agent": "cloudcover", "Accept-Encoding": "identity"})
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._session.max_redirects = 5
        self._session.hooks["response"].append(refuse_downgrade)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(pool_maxsize=self.connections))

    def files(self) -> dict[str, Listed]:
        """Find the tables."""
        places = {name: [found for folder in FOLDERS if (found := self.find(folder + name))] for name in TABLES}
        return {name: found[0] for name, found in places.items() if found}

    def find(self, key: str) -> Listed | None:
        """Ask for length and version of a file; None where the server has no such file; raises as `fetch`."""

        def attempt() -> Listed:
            with self._answer("HEAD", key, {}) as response:
                length = response.headers.get("Content-Length")
                return Listed(key, int(length) if length else None, plain_etag(response.headers.get("ETag")))

        try:
            return self._persist(key, attempt)
        except MissingError:
            return None

    def fetch(self, key: str, part: Path, resume: bool = False) -> str:
        """Read one file, and compare its MD5 if the server reports one.

        Args:
            key: Name below the root.
            part: Gets the bytes.
            resume: Continue after the bytes that `part` has from an earlier run, and also where no version proves
                that they belong together. The caller must compare a hash.
        """
        etag, md5, furthest = "", "", 0
        if not resume:
            part.unlink(missing_ok=True)

        def attempt() -> str:
            nonlocal etag, md5, furthest
            have = part.stat().st_size if part.exists() and (resume or etag.startswith('"')) else 0
            headers = {"Range": f"bytes={have}-"} | ({"If-Range": etag} if etag else {}) if have else {}
            with self._answer("GET", key, headers) as response:
                span = response.headers.get("Content-Range", "")
                if response.status_code == 416 and span == f"bytes */{have}":  # an earlier run had it all
                    return ""
                if response.status_code == 200:
                    have, etag, md5 = 0, response.headers.get("ETag", ""), response.headers.get("Content-MD5", "")
                elif not span.startswith(f"bytes {have}-"):
                    part.unlink()
                    raise _Passing("the server cannot continue where the transfer broke off")
                with part.open("ab" if have else "wb") as file:
                    try:
                        for chunk in response.raw.stream(1 << 20, decode_content=False):
                            file.write(chunk)
                    except HTTPError as error:
                        before, furthest = furthest, max(furthest, file.tell())
                        raise _Passing(f"the connection was cut ({error})", advanced=furthest > before) from None
            if md5 and md5 != _md5(part):
                part.unlink()
                raise _Passing(f"it arrived with another MD5 than {md5}, which the server reports")
            return plain_etag(etag)

        return self._persist(key, attempt)

    def origin(self, key: str) -> str:
        """Join root and key."""
        return f"{self._root}/{quote(key)}"

    def stop(self) -> None:
        """End the waits of all threads."""
        self._stopped.set()

    def _persist(self, key: str, attempt: Callable[[], T]) -> T:
        failures = 0
        while True:
            self._wait(self._not_before - time.monotonic())
            try:
                return attempt()
            except _Passing as error:
                failures = 1 if error.advanced else failures + 1
                if failures == ATTEMPTS:
                    said = f"gave up after {ATTEMPTS} attempts, the last: {error}; run again to continue from here"
                    raise DownloadError(f"{self.origin(key)}: {said}") from None
                if error.after_s is None:
                    self._wait(random.uniform(0.5, 1.5) * min(30.0, BACKOFF_S * 2.0 ** (failures - 1)))
                elif error.after_s > LONGEST_WAIT_S:
                    said = f"{error}, and asks to come back in {error.after_s:.0f} s: run again then"
                    raise DownloadError(f"{self.origin(key)}: {said}") from None
                else:  # the server speaks to all threads
                    self._not_before = max(self._not_before, time.monotonic() + error.after_s)

    def _wait(self, seconds: float) -> None:
        if self._stopped.wait(max(0.0, seconds)):
            raise DownloadError("the download was stopped")

    def _answer(self, method: str, key: str, headers: dict[str, str]) -> requests.Response:
        """An answer of status 200, 206 or 416, whose body is not read yet."""
        url, passing = self.origin(key), (requests.ConnectionError, requests.Timeout)
        try:
            response = self._session.request(
                method, url, headers=headers, stream=True, timeout=TIMEOUT_S, allow_redirects=True
            )
        except requests.RequestException as error:
            if isinstance(error, passing) and not isinstance(error, requests.exceptions.SSLError):
                raise _Passing(f"no answer ({redact(str(error))})") from None
            raise DownloadError(f"{url}: {redact(str(error))}") from None
        status, said = response.status_code, f"{response.status_code} {response.reason}"
        if status in (200, 206, 416):
            return response
        response.close()
        if status not in (408, 425, 429, 500, 502, 503, 504):
            raise refusal(status, said, url)
        try:
            after = Retry().parse_retry_after(response.headers.get("Retry-After", ""))
        except InvalidHeader:
            after = None
        raise _Passing(f"the server answered {said}", after)


def refuse_downgrade(response: requests.Response, **_: object) -> None:
    """Refuse to be sent from https to http, where others could change the files."""
    target = urljoin(response.url, response.headers.get("Location", ""))
    if response.is_redirect and response.url.startswith("https:") and not target.startswith("https:"):
        raise DownloadError(f"{redact(response.url)}: the server redirects from https to http; refused")


def _md5(path: Path) -> str:
    """MD5 as `Content-MD5` has it."""
    with path.open("rb") as file:
        return base64.b64encode(hashlib.file_digest(file, "md5").digest()).decode()
