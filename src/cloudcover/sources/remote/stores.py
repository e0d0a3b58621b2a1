"""Azure containers and S3 buckets, read by obstore.

obstore lists, transfers, retries and resumes. Web folders are in `http`, tar archives in `archive.store`.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import AzureStore, S3Store

from cloudcover.config.secrets import redact
from cloudcover.data.layout import SPLITS
from cloudcover.sources.remote.errors import DownloadError, refusal

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

MIRROR = "https://radiantearth.blob.core.windows.net/mlhub/ref_cloud_cover_detection_challenge_v1/final"
"""The public copy on Azure, which `source: azure` reads when it is given neither a SAS nor `data.url`."""
FOLDERS = ("", "public/", "private/")
"""Possible folders of a split below the root: the challenge has none, the mirrors have `public/` and `private/`."""
TABLES = tuple(f"{split}_metadata.csv" for split in SPLITS)
RETRIES: RetryConfig = {"max_retries": 10, "retry_timeout": timedelta(minutes=2)}
_LAYOUT = re.compile(
    r"(?:public/|private/)?((?:train|test)_(?:features/[^/.][^/]*/[^/.][^/]*|labels/[^/.][^/]*|metadata\.csv)|chip_id_crosswalk\.csv)"
)


@dataclass(frozen=True)
class Listed:
    """A file of a store: its key below the root, length [bytes] or None, and version or empty."""

    key: str
    bytes: int | None = None
    etag: str = ""


class ObjectStore:
    """A container or bucket, or a folder in it."""

    lists = True
    """`files` finds all files; otherwise only the tables, from which all else follows."""
    connections = 16
    """Files in flight: enough to hide the latency of a store, few enough for one that counts requests."""

    def __init__(self, store: AzureStore | S3Store, url: str) -> None:
        self._store = store
        self._root = redact(url.rstrip("/"))

    def files(self) -> dict[str, Listed]:
        """Find the files of the challenge's layout by path; a split in two places is taken from the root."""
        try:
            items = obstore.list(self._store).collect()
        except BaseError as error:
            raise _explained(error, self._root) from None
        found: dict[str, Listed] = {}
        for item in items:
            key, match = item["path"], _LAYOUT.fullmatch(item["path"])
            if match and (match[1] not in found or len(key) < len(found[match[1]].key)):
                found[match[1]] = Listed(key, item["size"], (item["e_tag"] or "").strip('"'))
        return found

    def fetch(self, key: str, part: Path) -> None:
        """Write an object to the temporary name `part`.

        Raises:
            DownloadError: See `errors`.
            OSError: The disk is full or the folder is read-only.
        """
        with part.open("wb") as file:
            try:
                file.writelines(obstore.get(self._store, key).stream(min_chunk_size=1 << 20))
            except FileNotFoundError:
                raise refusal(404, "404 Not Found", self.origin(key)) from None
            except BaseError as error:
                raise _explained(error, self.origin(key)) from None

    def origin(self, key: str) -> str:
        """Return the address of an object for messages, without secrets."""
        return f"{self._root}/{quote(key)}"


def azure_container(url: str, token: str = "") -> ObjectStore:
    """Open a container of Azure Blob Storage or a folder in it, public or by a SAS, or raise `DownloadError`."""
    parts = urlsplit(url)
    path = parts.path.strip("/").split("/")
    endpoint, host = f"{parts.scheme}://{parts.netloc}", parts.hostname or ""
    # Emulators and Azure Stack have the account in the path, Azure has it in the host's name.
    named = bool(re.match(r"[a-z0-9-]+\.(blob|dfs)\.", host))
    account = host.split(".")[0] if named else path.pop(0)
    if parts.scheme not in ("http", "https") or not account or not path or not path[0]:
        raise DownloadError(
            f"{redact(url)} is not a container: expected https://ACCOUNT.blob.core.windows.net/CONTAINER"
        )
    store = AzureStore(
        path[0],
        prefix="/".join(path[1:]) or None,
        account_name=account,
        endpoint=endpoint if named else f"{endpoint}/{account}",
        client_options=_client(endpoint),
        retry_config=RETRIES,
        config={"sas_key": token} if token else {"skip_signature": True},
    )
    return ObjectStore(store, f"{endpoint}{parts.path}")


def s3_bucket(url: str, endpoint: str | None) -> ObjectStore:
    """Open a bucket of S3, or of a compatible service at `endpoint`, or a folder in it: `s3://BUCKET/PREFIX`.

    It is read anonymously, unless the environment has AWS_ACCESS_KEY_ID: then requests are signed. Raises
    `DownloadError` if the address is not that of a bucket.
    """
    parts = urlsplit(url)
    if parts.scheme != "s3" or not parts.netloc:
        raise DownloadError(f"{redact(url)} is not a bucket: expected s3://BUCKET/PREFIX")
    store = S3Store.from_url(
        url.rstrip("/"),
        config={"endpoint": endpoint.rstrip("/")} if endpoint else {},
        skip_signature="AWS_ACCESS_KEY_ID" not in os.environ,
        client_options=_client(endpoint or "https:"),
        retry_config=RETRIES,
    )
    return ObjectStore(store, url)


def _client(endpoint: str) -> ClientConfig:
    """Return settings by which only silence ends a connection, not slowness, and no redirect leaves https."""
    http, silence = endpoint.startswith("http:"), timedelta(minutes=1)
    return {"allow_http": http, "read_timeout": silence, "timeout": timedelta(days=1)}


def _explained(error: BaseError, name: str) -> DownloadError:
    """Rewrite an error of obstore in this project's words, because its text may quote requests and responses."""
    if status := re.search(r"status code: (\d{3})[A-Za-z ]*", str(error)):
        code = re.search(r"<Code>(\w{1,60})</Code>", str(error))
        said = status[0].removeprefix("status code: ").strip()
        return refusal(int(status[1]), f"{said} ({code[1]})" if code else said, name)
    said = redact(str(error).splitlines()[0].rpartition(" - ")[2])
    return DownloadError(f"{name}: gave up; the last error: {said}; run again to continue from here")
