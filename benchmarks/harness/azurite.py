"""Azurite, the emulator of Azure's blob store, on loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from filelock import FileLock

AZURITE_VERSION = "3.35.0"
PROXIES = {"http_proxy", "https_proxy"}
AZURITE_ACCOUNT = "devstoreaccount1"
# The emulator's published key, the same in every installation.
AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def free_port() -> int:
    """Return an unused port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def install_azurite() -> Path:
    """Return Azurite's entry point, which npm installs into the environment's folder on first use."""
    folder = Path(sys.prefix) / "azurite"
    entry = folder / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    folder.mkdir(exist_ok=True)
    with FileLock(folder / "install.lock"):  # several test processes may ask for it at once
        if not entry.exists():
            # The tests' environment names a proxy at which nobody listens, which would keep npm waiting for minutes.
            direct = {name: value for name, value in os.environ.items() if name.lower() not in PROXIES}
            subprocess.run(
                ["npm", "install", "--prefix", ".", "--no-audit", "--no-fund", f"azurite@{AZURITE_VERSION}"],
                cwd=folder,
                env=direct,
                check=True,
                capture_output=True,
                timeout=300,
            )
    return entry


@dataclass
class Azurite:
    """A running Azurite server."""

    url: str
    port: int
    log: Path

    def service(self) -> Any:
        """Return a client of the account; raise an error if the server has ended."""
        from azure.storage.blob import BlobServiceClient

        if not listens(self.port):
            raise RuntimeError(f"Azurite has ended: {self.log.read_text()[-2000:]}")
        return BlobServiceClient(self.url, credential=AZURITE_KEY, retry_total=1)

    def upload(self, container: str, folder: Path, prefix: str = "", public: bool = False) -> None:
        """Upload the files below a folder to a new container."""
        import obstore
        from obstore.store import AzureStore

        self.service().create_container(container, public_access="container" if public else None)
        store = AzureStore(
            container,
            account_name=AZURITE_ACCOUNT,
            account_key=AZURITE_KEY,
            endpoint=self.url,
            client_options={"allow_http": True},
        )
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            obstore.put(store, prefix + path.relative_to(folder).as_posix(), path)

    def sas(self, container: str, hours: float = 1, read: bool = True) -> str:
        """Return a SAS URL, expired if the hours are negative."""
        from azure.storage.blob import ContainerSasPermissions, generate_container_sas

        now = datetime.now(UTC)
        token = generate_container_sas(
            AZURITE_ACCOUNT,
            container,
            account_key=AZURITE_KEY,
            permission=ContainerSasPermissions(read=read, list=True),
            start=now - timedelta(days=1),
            expiry=now + timedelta(hours=hours),
        )
        return f"{self.url}/{container}?{token}"


@contextmanager
def run_azurite() -> Iterator[Azurite]:
    """Start Azurite on a free port, and end it."""
    entry, port = install_azurite(), free_port()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "azurite.log")
        options = f"--blobPort {port} --skipApiVersionCheck --disableTelemetry --silent --location {folder}".split()
        # The shell waits for the end of its input: Azurite ends with the tests, even if these are killed.
        watch = 'node "$@" & cat > /dev/null; kill -9 $!; wait $!'
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["sh", "-c", watch, "sh", entry, *options], stdin=subprocess.PIPE, stdout=output, stderr=output
            )
        try:
            end = time.monotonic() + 60
            while not listens(port):
                if time.monotonic() > end:
                    raise RuntimeError(f"Azurite did not start: {log.read_text()[-2000:]}")
                time.sleep(0.05)
            yield Azurite(f"http://127.0.0.1:{port}/{AZURITE_ACCOUNT}", port, log)
        finally:
            process.communicate()


def listens(port: int) -> bool:
    """Return whether a server listens on a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
