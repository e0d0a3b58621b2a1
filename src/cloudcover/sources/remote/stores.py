"""Where a set lies on the network: an Azure container, an S3 bucket, a plain web folder.

A store tells which files it has, where listing is possible, and at which address one is fetched. obstore lists and
signs; the transfer itself is `http.Client`'s.
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import AzureStore, S3Store

from cloudcover.config.secrets import SAS_FILE, SAS_URL, SecretError, redact, sas
from cloudcover.config.sections import DataParams
from cloudcover.sources.remote.errors import AccessError, DownloadError
from cloudcover.sources.remote.http import plain_etag

logger = logging.getLogger(__name__)

MIRROR = "https://radiantearth.blob.core.windows.net/mlhub/ref_cloud_cover_detection_challenge_v1/final"
"""The public copy on Azure, which `source: azure` reads when it is given neither a SAS nor `data.url`."""

FOLDERS = ("", "public/", "private/")
"""Where a split may lie below the root: the challenge had it there, the mirrors keep `public/` and `private/`."""

_LAYOUT = re.compile(
    r"(?:public/|private/)?((?:train|test)_(?:features/[^/.][^/]*/[^/.][^/]*|labels/[^/.][^/]*|metadata\.csv)|chip_id_crosswalk\.csv)"
)


@dataclass(frozen=True)
class Listed:
    """A file of a store: its key below the root, length [bytes] or None, and version or empty."""

    key: str
    bytes: int | None = None
    etag: str = ""


class ObjectStore(Protocol):
    """Where a set lies.

    Attributes:
        etag_is_md5: the ETag of a file is its MD5, if it looks like one.
    """

    etag_is_md5: bool

    def files(self) -> dict[str, Listed] | None:
        """Files in the challenge's layout by path, or None where the store cannot be listed; raises `DownloadError`."""

    def url(self, key: str) -> str:
        """Address of a file; it may hold a signature."""

    def origin(self, key: str) -> str:
        """Address of a file for people, without secrets."""


class WebFolder:
    """Files below an HTTP address; what exists is known from the metadata alone."""

    etag_is_md5 = False

    def __init__(self, url: str) -> None:
        self._root = url.rstrip("/")

    def files(self) -> None:
        """See `ObjectStore`."""

    def url(self, key: str) -> str:
        """See `ObjectStore`."""
        return f"{self._root}/{quote(key)}"

    def origin(self, key: str) -> str:
        """See `ObjectStore`."""
        return self.url(key)


class AzureContainer:
    """A container of Azure Blob Storage, or a folder in it, public or by a SAS."""

    etag_is_md5 = False

    def __init__(self, url: str, token: str = "") -> None:
        """Makes a store.

        Args:
            url: of the container or of a folder in it, without a query.
            token: the SAS, the query of its URL; empty for a public container.

        Raises:
            DownloadError: the address is not one of a container.
        """
        parts = urlsplit(url)
        path = parts.path.strip("/").split("/")
        host = parts.hostname or ""
        # Emulators and Azure Stack have the account in the path, Azure has it in the host's name.
        named = bool(re.match(r"[a-z0-9-]+\.(blob|dfs)\.", host))
        account = host.split(".")[0] if named else path.pop(0)
        if parts.scheme not in ("http", "https") or not account or not path or not path[0]:
            raise DownloadError(
                f"{redact(url)} is no container: expected https://ACCOUNT.blob.core.windows.net/CONTAINER"
            )
        self._root = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self._token = token
        self._prefix = "/".join(path[1:])
        endpoint = f"{parts.scheme}://{parts.netloc}" + ("" if named else f"/{account}")
        access: dict[str, Any] = {"sas_key": token} if token else {"skip_signature": True}
        self._store = AzureStore(
            path[0],
            account_name=account,
            endpoint=endpoint,
            client_options={"allow_http": parts.scheme == "http"},
            **access,
        )

    def files(self) -> dict[str, Listed]:
        """See `ObjectStore`."""
        return _listed(self._store, self._prefix, self._root)

    def url(self, key: str) -> str:
        """See `ObjectStore`."""
        return self.origin(key) + (f"?{self._token}" if self._token else "")

    def origin(self, key: str) -> str:
        """See `ObjectStore`."""
        return f"{self._root}/{quote(key)}"


class Bucket:
    """A bucket of Amazon S3 or of a compatible service, or a folder in it.

    It is read anonymously, unless the environment has AWS_ACCESS_KEY_ID: then requests are signed.
    """

    etag_is_md5 = True

    def __init__(self, url: str, endpoint: str | None) -> None:
        """Makes a store.

        Args:
            url: `s3://BUCKET/PREFIX`.
            endpoint: address of the service, or None for Amazon's in AWS_REGION.

        Raises:
            DownloadError: the address is not one of a bucket.
        """
        parts = urlsplit(url)
        if parts.scheme != "s3" or not parts.netloc:
            raise DownloadError(f"{redact(url)} is no bucket: expected s3://BUCKET/PREFIX")
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        endpoint = (endpoint or f"https://s3.{region}.amazonaws.com").rstrip("/")
        self._name = url.rstrip("/")
        self._prefix = parts.path.strip("/")
        self._root = f"{endpoint}/{parts.netloc}"
        self._signed = "AWS_ACCESS_KEY_ID" in os.environ
        self._store = S3Store(
            parts.netloc,
            endpoint=endpoint,
            region=region,
            skip_signature=not self._signed,
            client_options={"allow_http": endpoint.startswith("http:")},
        )

    def files(self) -> dict[str, Listed]:
        """See `ObjectStore`."""
        return _listed(self._store, self._prefix, self._name)

    def url(self, key: str) -> str:
        """See `ObjectStore`."""
        full = f"{self._prefix}/{key}".lstrip("/")
        if self._signed:
            return obstore.sign(self._store, "GET", full, timedelta(hours=1))
        return f"{self._root}/{quote(full)}"

    def origin(self, key: str) -> str:
        """See `ObjectStore`."""
        return f"{self._name}/{key}"


def open_store(params: DataParams) -> ObjectStore:
    """The store that the parameters and the environment name.

    Raises:
        SecretError: no SAS where one is named, or a token without an address.
        DownloadError: an address that fits no container or bucket.
    """
    if params.source == "http":
        assert params.url is not None  # DataParams checks it
        return WebFolder(params.url)
    if params.source == "s3":
        assert params.url is not None
        return Bucket(params.url, params.endpoint)
    secret = sas(params.sas_file)
    if secret is None:
        logger.info("no SAS in %s, %s or data.sas_file: reading without one", SAS_URL, SAS_FILE)
        return AzureContainer(params.url or MIRROR)
    address, _, token = secret.rpartition("?")
    if not (params.url or address):
        raise SecretError(
            f"{SAS_URL} holds a token without an address: set data.url to https://ACCOUNT.blob.core.windows.net/CONTAINER"
        )
    return AzureContainer(params.url or address, token)


def _listed(store: AzureStore | S3Store, prefix: str, root: str) -> dict[str, Listed]:
    found: dict[str, Listed] = {}
    try:
        for page in obstore.list(store, prefix or None, chunk_size=1000):
            for item in page:
                key = item["path"].removeprefix(f"{prefix}/") if prefix else item["path"]
                if match := _LAYOUT.fullmatch(key):
                    entry = Listed(key, item["size"], plain_etag(item["e_tag"]))
                    # A split that lies in two places is taken from the root.
                    if match[1] not in found or len(key) < len(found[match[1]].key):
                        found[match[1]] = entry
    except BaseError as error:
        raise _explained(error, root) from None
    if not found:
        raise DownloadError(f"{root} holds no files of the challenge's layout (train_metadata.csv, train_features/...)")
    return found


def _explained(error: BaseError, root: str) -> DownloadError:
    """An error of the listing in words of this project; its own text may quote requests."""
    status = re.search(r"status code: (\d{3}[A-Za-z ]*)", str(error))
    code = re.search(r"<Code>(\w{1,60})</Code>", str(error))
    said = " ".join(filter(None, (status and status[1].strip(), code and f"({code[1]})"))) or type(error).__name__
    if isinstance(error, PermissionDeniedError | UnauthenticatedError) or (status and status[1][:3] in ("401", "403")):
        return AccessError(
            f"{root} cannot be listed: the server answered {said}. If it needs a SAS, it has expired or lacks the "
            "right to read and list: renew it and run again, finished files are kept. A public folder without "
            "listing can be read by source: http"
        )
    return DownloadError(f"{root} cannot be listed: {said}; check the address and the connection")
