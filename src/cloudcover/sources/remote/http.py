"""Polite downloads by HTTP: many side by side, resumed where they broke off, checked, at the server's pace.

They are not left to the object-store libraries, because two things do not come through these: `Retry-After`, which
tells when to come back, and `Content-MD5`, which tells what the bytes should be.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import shutil
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from aiohttp import ClientError, ClientResponse

from cloudcover.sources.remote.connection import Connections, words
from cloudcover.sources.remote.errors import ContentError, DownloadError, Retry

T = TypeVar("T")

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Received:
    """A file that has arrived.

    Attributes:
        changed: False: not modified since the given ETag, nothing was transferred.
        etag: version, without quotes; empty if the server gives none.
        bytes: length.
        sha256: of what arrived.
        md5: of what arrived, where it was asked for or the server tells one; else empty.
        server_md5: what the server says that the MD5 is, or empty.
        etag_is_hash: False: the store encrypts by a managed key, its ETag is no MD5.
    """

    changed: bool
    etag: str
    bytes: int = 0
    sha256: str = ""
    md5: str = ""
    server_md5: str = ""
    etag_is_hash: bool = True


class Client:
    """Fetches files: any number of its coroutines side by side, in the one thread that calls `run`."""

    def __init__(
        self, attempts: int = 8, timeout_s: float = 60, backoff_s: float = 0.25, longest_wait_s: float = 600
    ) -> None:
        """Makes a client.

        Args:
            attempts: how often a file is tried.
            timeout_s: silence after which a connection counts as dead [s].
            backoff_s: mean wait after the first failure, doubled with each further one up to 30 s [s].
            longest_wait_s: a server that asks for a longer pause is not waited for [s].
        """
        self.attempts = attempts
        self.backoff_s = backoff_s
        self.longest_wait_s = longest_wait_s
        self.connections = Connections(timeout_s)
        self._loop = asyncio.Runner()
        self._not_before = 0.0
        self._rng = np.random.default_rng()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.run(self.connections.close())
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Waits for a coroutine; Ctrl-C cancels it."""
        return self._loop.run(work)

    async def download(
        self,
        url: str,
        part: Path,
        name: str,
        accept: Callable[[Path, Received], None],
        known_etag: str = "",
        md5: bool = False,
        resume: bool = False,
    ) -> Received:
        """Fetches one file to the temporary name `part`.

        Args:
            url: may hold a signature; it appears in no message.
            part: gets the bytes; after an error it is gone, except with `resume`.
            name: what to call the file in messages.
            accept: takes what has arrived; raises `ContentError` if it is not what it should be, which is
                then fetched anew, twice at most.
            known_etag: do nothing if the server still has this version.
            md5: compute the MD5 also where the server does not tell one.
            resume: go on behind the bytes that `part` has from an earlier run; only where `accept` knows a hash.

        Raises:
            AccessError: 401 or 403.
            MissingError: 404 or 410.
            ContentError: see `accept`.
            DownloadError: any other refusal, or no success after all attempts.
            OSError: the disk is full or the folder read-only.
        """
        transfer = _Transfer(self, url, part, name, known_etag, md5, resume)
        if resume and part.exists():
            transfer.take_over()
        refused = 0

        async def attempt() -> Received:
            nonlocal refused
            received = await transfer.run()
            if received.changed:
                try:
                    accept(part, received)
                except ContentError as error:
                    transfer.forget()
                    refused += 1
                    if refused > 2:
                        raise
                    raise Retry(str(error)) from None
            return received

        try:
            return await self._persist(name, attempt)
        except BaseException as error:
            if not resume or isinstance(error, ContentError):
                part.unlink(missing_ok=True)
            raise

    async def length(self, url: str, name: str) -> int | None:
        """Length of a file [bytes] by a HEAD request, or None where the server does not tell; raises as `download`."""

        async def attempt() -> int | None:
            async with self.connections.answer("HEAD", url, name, {}) as response:
                text = response.headers.get("Content-Length")
            return int(text) if text else None

        return await self._persist(name, attempt)

    async def _persist(self, name: str, attempt: Callable[[], Awaitable[T]]) -> T:
        tried = 0
        while True:
            while (pause := self._not_before - time.monotonic()) > 0:
                await asyncio.sleep(pause)
            try:
                return await attempt()
            except Retry as error:
                tried = 1 if error.advanced else tried + 1
                if tried == self.attempts:
                    raise DownloadError(
                        f"{name}: gave up after {tried} attempts, the last: {error}; run again to go on from here"
                    ) from None
                await asyncio.sleep(self._wait_s(error, tried, name))

    def _wait_s(self, error: Retry, tried: int, name: str) -> float:
        jitter: float = self._rng.uniform(0.5, 1.5)
        if error.after_s is None:
            return jitter * min(30.0, self.backoff_s * 2.0 ** (tried - 1))
        if error.after_s > self.longest_wait_s:
            raise DownloadError(f"{name}: {error}, and asks to come back in {error.after_s:.0f} s: run again then")
        # The server speaks to all.
        self._not_before = max(self._not_before, time.monotonic() + error.after_s)
        return error.after_s + jitter * self.backoff_s


class _Transfer:
    """One file on its way: what has arrived, and of which version."""

    def __init__(
        self, client: Client, url: str, part: Path, name: str, known_etag: str, md5: bool, resume: bool
    ) -> None:
        self.client = client
        self.url = url
        self.part = part
        self.name = name
        self.known_etag = known_etag
        self.wants_md5 = md5
        self.resume = resume  # also where no version tells that the rest belongs to the beginning
        self.furthest = 0  # bytes that any attempt reached
        self.forget()

    def forget(self) -> None:
        """Starts again from the first byte."""
        self.have = 0
        self.etag = ""  # as the server wrote it; a strong one lets the rest of the same version be asked for
        self.server_md5 = ""
        self.etag_is_hash = True
        self.sha256 = hashlib.sha256()
        self.md5 = hashlib.md5(usedforsecurity=False) if self.wants_md5 else None

    def take_over(self) -> None:
        """Counts what an earlier run left in the temporary file."""
        with self.part.open("rb") as file:
            while chunk := file.read(_CHUNK):
                self._count(chunk)

    async def run(self) -> Received:
        """One attempt."""
        headers = {"If-None-Match": f'"{self.known_etag}"'} if self.known_etag else {}
        if self.have:
            headers = {"Range": f"bytes={self.have}-"} | ({"If-Range": self.etag} if self.etag else {})
        async with self.client.connections.answer("GET", self.url, self.name, headers) as response:
            if response.status == 304:
                return Received(False, self.known_etag)
            if response.status == 416:
                if response.headers.get("Content-Range") == f"bytes */{self.have}":  # an earlier run had it all
                    return self._received()
                self.forget()
                raise Retry("the server cannot go on where the transfer broke off")
            total = self._begin(response)
            try:
                await self._receive(response)
            except Retry as error:
                raise self._broken(total, str(error)) from None
        if total is not None and self.have != total:  # a server may send less than it was asked for
            raise self._broken(total, "")
        return self._received()

    def _broken(self, total: int | None, reason: str) -> Retry:
        """What to do when the body ended too early."""
        if total is not None:
            reason = f"the connection was cut after {self.have} of {total} bytes"
        if not self.resume and (not self.etag or self.etag.startswith("W/")):
            self.forget()
        advanced = self.have > self.furthest
        self.furthest = max(self.furthest, self.have)
        return Retry(reason, advanced=advanced)

    def _begin(self, response: ClientResponse) -> int | None:
        """Reads the headers; returns the length of the whole file [bytes], if it is known."""
        headers = response.headers
        if headers.get("Content-Encoding", "identity") != "identity":
            raise DownloadError(
                f"{self.name}: the server sends it as {headers['Content-Encoding']}, which was not asked for"
            )
        if response.status == 206:
            found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", headers.get("Content-Range", ""))
            if not found or int(found[1]) != self.have:
                self.forget()
                raise Retry("the server sent another part than was asked for")
            self.etag = self.etag or headers.get("ETag", "")
            return int(found[2])
        self.forget()
        self.etag = headers.get("ETag", "")
        self.server_md5 = _md5(headers.get("Content-MD5"))
        managed = headers.get("x-amz-server-side-encryption", "").startswith("aws:kms")
        self.etag_is_hash = not managed and "x-amz-server-side-encryption-customer-algorithm" not in headers
        if self.server_md5 and self.md5 is None:
            self.md5 = hashlib.md5(usedforsecurity=False)
        length = headers.get("Content-Length")
        return int(length) if length and length.isdigit() else None

    async def _receive(self, response: ClientResponse) -> None:
        # Written and hashed where it is received: a change of threads per file costs more than it gains (half as
        # fast on two cores).
        with self.part.open("r+b" if self.have else "wb") as file:
            file.seek(self.have)
            file.truncate()
            while chunk := await self._read(response):
                file.write(chunk)
                self._count(chunk)

    async def _read(self, response: ClientResponse) -> bytes:
        try:
            return await response.content.readany()
        except (ClientError, TimeoutError) as error:
            raise Retry(f"the connection broke ({words(error)})") from None

    def _count(self, chunk: bytes) -> None:
        self.have += len(chunk)
        self.sha256.update(chunk)
        if self.md5 is not None:
            self.md5.update(chunk)

    def _received(self) -> Received:
        md5 = self.md5.hexdigest() if self.md5 is not None else ""
        return Received(
            True, plain_etag(self.etag), self.have, self.sha256.hexdigest(), md5, self.server_md5, self.etag_is_hash
        )


def plain_etag(etag: str | None) -> str:
    """An ETag without quotes and weakness mark, as listings give it; empty if there is none."""
    return (etag or "").removeprefix("W/").strip('"')


def check_space(folder: Path, need: int, reserve: int = 64 << 20) -> None:
    """Refuses to begin what would not fit.

    Args:
        folder: where the files go; it exists.
        need: bytes that are still to come.
        reserve: bytes that must stay free.

    Raises:
        DownloadError: names need, free space and folder.
    """
    free = shutil.disk_usage(folder).free
    if need + reserve > free:
        raise DownloadError(
            f"{folder} needs {need / 1e9:.2f} GB for the files that are missing, but only {free / 1e9:.2f} GB are "
            "free: make room, or start with a part of the set (data.subset)"
        )


def _md5(header: str | None) -> str:
    """`Content-MD5` as 32 hexadecimal digits, or empty."""
    try:
        digest = base64.b64decode(header or "", validate=True)
    except ValueError:
        return ""
    return digest.hex() if len(digest) == 16 else ""
