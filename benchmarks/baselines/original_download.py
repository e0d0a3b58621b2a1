"""The original's download of a container: cloudpathlib lists it with `rglob`, a process pool fetches file by file.

    python -m venv .venv/original && .venv/original/bin/pip install "cloudpathlib[azure]==0.26.0" tqdm
    CLOUDCOVER_SAS_URL="https://...?sig=..." .venv/original/bin/python benchmarks/baselines/original_download.py FOLDER

It takes the steps of the challenge's `download_data.py`: `rglob("*")`, `process_map` in chunks of ten with its default
of workers, `is_file()` and then `fspath`, which fetches into the client's cache folder. cloudpathlib is no dependency
of the project, so this runs in an environment of its own. The last line is JSON: files, bytes and seconds, listing
included, start of the interpreter not.
"""

from __future__ import annotations

import json
import os
import sys
import time
from functools import cache
from pathlib import Path

from azure.storage.blob import BlobServiceClient
from cloudpathlib import AzureBlobClient, AzureBlobPath
from tqdm.contrib.concurrent import process_map

ADDRESS, _, TOKEN = os.environ["CLOUDCOVER_SAS_URL"].partition("?")
ACCOUNT, _, CONTAINER = ADDRESS.rpartition("/")


@cache
def client(process: int) -> AzureBlobClient:
    """Return the client of a process: connections must not be shared by a fork."""
    service = BlobServiceClient(ACCOUNT, credential=TOKEN)
    return AzureBlobClient(blob_service_client=service, local_cache_dir=sys.argv[1])


def download(name: str) -> int:
    """Fetch one file; return its length [bytes]."""
    path = AzureBlobPath(name, client=client(os.getpid()))
    return Path(path.fspath).stat().st_size if path.is_file() else 0


def main() -> None:
    """List, download, and print."""
    start = time.perf_counter()
    root = AzureBlobPath(f"az://{CONTAINER}/", client=client(os.getpid()))
    names = [str(path) for path in root.rglob("*") if path.suffix.lower() == ".tif"]
    lengths = process_map(download, names, chunksize=10, disable=True)
    print(json.dumps({"files": len(lengths), "bytes": sum(lengths), "seconds": time.perf_counter() - start}))


if __name__ == "__main__":
    main()
