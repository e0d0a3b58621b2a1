"""`cloudcover review` as a separate process, and its client."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pandas as pd

from cloudcover.data import tables


@dataclass
class Answer:
    """A response of the server."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Parse the body."""
        return json.loads(self.body)


class Site:
    """`cloudcover review` on the set below a folder, ended at the end of a `with` block."""

    def __init__(self, root: Path, reviewer: str = "Ada Lovelace") -> None:
        self.root, self.reviewer, self.port = root, reviewer, 0
        self.verdicts = root / "config" / "verdicts.csv"

    def command(self) -> list[str]:
        """Return the command line."""
        options = {
            "store": self.root / "store", "audit": self.root / "audit.csv", "predictions": self.root / "oof",
            "verdicts": self.verdicts, "reviewer": self.reviewer, "port": self.port,
        }  # fmt: skip
        given = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
        return [sys.executable, "-m", "cloudcover", "review", "--no-browser", *given]

    def start(self) -> Site:
        """Start the server, on its previous port if there was one, and wait for its address."""
        self.process = subprocess.Popen(self.command(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self.process.stdout
        self.address = self.process.stdout.readline().strip()
        if not self.address.startswith("http://127.0.0.1:"):
            raise AssertionError(self.address + self.process.stdout.read())
        parts = urlsplit(self.address)
        self.port = int(parts.port or 0)
        self.base, self.key = f"http://127.0.0.1:{self.port}/", parse_qs(parts.query)["key"][0]
        return self

    def kill(self) -> None:
        """End the server like a crash."""
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Site:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.kill()
        assert self.process.stdout
        self.process.stdout.close()

    def ask(self, path: str, body: Any = None, headers: Mapping[str, str | None] | None = None) -> Answer:
        """Send a request like the page; `headers` overrides single headers, and None omits one."""
        sent: dict[str, str | None] = {"Host": f"127.0.0.1:{self.port}", "Cookie": f"review-{self.port}={self.key}"}
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            sent |= {
                "Origin": f"http://127.0.0.1:{self.port}", "Content-Type": "application/json",
                "Content-Length": str(len(data)), "X-Review-Token": self.ask("/api/session").json()["token"],
            }  # fmt: skip
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.putrequest("GET" if body is None else "POST", path, skip_host=True)
            for name, value in (sent | dict(headers or {})).items():
                if value is not None:
                    connection.putheader(name, value)
            connection.endheaders(data)
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def rows(self) -> pd.DataFrame:
        """Read the verdicts on disk, by chip."""
        return tables.VERDICTS.read(self.verdicts).set_index("chip_id", drop=False)
