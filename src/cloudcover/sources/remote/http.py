"""Files of a web folder, read by requests: retried at the server's pace, and resumed where they broke off."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from urllib.parse import quote, urljoin

import requests
from requests.adapters import HTTPAdapter
from urllib3 import Retry
from urllib3.exceptions import HTTPError, MaxRetryError

from cloudcover.config.secrets import redact
from cloudcover.data.layout import EXTRA
from cloudcover.sources.remote.errors import DownloadError, MissingError, refusal
from cloudcover.sources.remote.stores import FOLDERS, TABLES, Listed

TIMEOUT_S = 60.0
"""Silence after which a connection counts as dead [s]."""
RETRIES = Retry(
    7,
    status_forcelist=(408, 425, 429, 500, 502, 503, 504),
    backoff_factor=0.25,
    backoff_jitter=0.25,
    backoff_max=30,
    retry_after_max=600,
    raise_on_status=False,
)
"""For failures in a row without a further byte. Waits double [s], unless `Retry-After` says when to come back."""


class WebFolder:
    """The files below an HTTP address; see `ObjectStore`."""

    lists = False
    connections = 16

    def __init__(self, url: str) -> None:
        self._root = url.rstrip("/")
        self._session = requests.Session()
        self._session.headers.update({"User-Agent": "cloudcover", "Accept-Encoding": "identity"})
        self._session.hooks["response"].append(refuse_downgrade)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(pool_maxsize=self.connections, max_retries=RETRIES))

    def files(self) -> dict[str, Listed]:
        """Find the tables; all other files follow from them."""
        found = [(name, self.find(folder + name)) for name in (*TABLES, *EXTRA) for folder in FOLDERS]
        return {name: listed for name, listed in reversed(found) if listed}  # the first folder counts

    def find(self, key: str) -> Listed | None:
        """Ask for length and version of a file; return None if it does not exist; raise as `fetch`."""
        try:
            with self._answer("HEAD", key) as response:
                length = response.headers.get("Content-Length")
                return Listed(key, int(length) if length else None, response.headers.get("ETag", ""))
        except MissingError:
            return None

    def fetch(self, key: str, part: Path, resume: bool = False) -> None:
        """Read one file, and compare its MD5 if the server reports one; see `ObjectStore.fetch`.

        Args:
            key: Name below the root.
            part: File to write.
            resume: Whether to continue after the bytes that `part` has from an earlier run, even if no version proves
                that they belong together. The caller must compare a hash.
        """
        etag, md5, furthest, retries = "", "", 0, RETRIES
        if not resume:
            part.unlink(missing_ok=True)
        while True:
            have = part.stat().st_size if part.exists() and (resume or etag.startswith('"')) else 0
            headers = {"Range": f"bytes={have}-"} | ({"If-Range": etag} if etag else {}) if have else {}
            try:
                with self._answer("GET", key, headers) as response:
                    if response.status_code == 200:
                        have, etag, md5 = 0, response.headers.get("ETag", ""), response.headers.get("Content-MD5", "")
                    elif not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                        part.unlink(missing_ok=True)
                        raise HTTPError("the server cannot continue where the transfer broke off")
                    with part.open("ab" if have else "wb") as file:
                        file.writelines(response.raw.stream(1 << 20, decode_content=False))
                if md5 not in ("", found := _md5(part)):
                    part.unlink()
                    raise HTTPError(f"it arrived with MD5 {found}, but the server reports {md5}")
                return
            except HTTPError as error:
                if part.exists() and part.stat().st_size > furthest:  # it advances
                    furthest, retries = part.stat().st_size, RETRIES
                try:
                    retries = retries.increment("GET", key, error=error)
                except MaxRetryError:
                    said = f"gave up; the last error: {redact(str(error))}; run again to continue from here"
                    raise DownloadError(f"{self.origin(key)}: {said}") from None
                retries.sleep()

    def origin(self, key: str) -> str:
        """Join root and key."""
        return f"{self._root}/{quote(key)}"

    def _answer(self, method: str, key: str, headers: dict[str, str] | None = None) -> requests.Response:
        """Return a response of status 200, 206 or 416, whose body is not read yet."""
        url = self.origin(key)
        try:
            response = self._session.request(
                method, url, headers=headers, stream=True, timeout=TIMEOUT_S, allow_redirects=True
            )
        except requests.RequestException as error:
            raise DownloadError(f"{url}: {redact(str(error))}; run again to continue from here") from None
        if response.status_code in (200, 206, 416):
            return response
        response.close()
        raise refusal(response.status_code, f"{response.status_code} {response.reason}", url)


def refuse_downgrade(response: requests.Response, **_: object) -> None:
    """Refuse redirects from https to http, where others could change the files."""
    target = urljoin(response.url, response.headers.get("Location", ""))
    if response.is_redirect and response.url.startswith("https:") and not target.startswith("https:"):
        raise DownloadError(f"{redact(response.url)}: the server redirects from https to http; refused")


def _md5(path: Path) -> str:
    """Return the MD5 of a file as in `Content-MD5`."""
    with path.open("rb") as file:
        return base64.b64encode(hashlib.file_digest(file, "md5").digest()).decode()
