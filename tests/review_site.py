"""A small set to review, and `cloudcover review` on it as a process of its own, for the tests of the page."""

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

import numpy as np
import pandas as pd
from conftest import blob

from cloudcover.data import tables
from cloudcover.data.statistics import band_statistics

SIZE = 64
BANDS = ("B02", "B03", "B04", "B08")
REASONS = ("false_cloud", "missed_cloud stripes", "")


def make_set(root: Path, chips: int = 24, unlabelled: int = 2, size: int = SIZE) -> list[str]:
    """Writes `store`, `audit.csv` and `oof/round1`, `oof/round2` below `root`, without the stages that make them.

    Suspicion falls with the number of the chip, and reasons take turns. Round 2 predicts the labels mirrored.

    Returns:
        The labelled chips, the most suspicious first.
    """
    rng = np.random.default_rng(0)
    ids = [f"c{number:03d}" for number in range(chips)]
    masks = np.stack([blob(rng, size, rng.uniform(0.2, 0.8)) for _ in ids]).astype(np.uint8)
    labels = masks.copy()
    labels[:, :, -4:] = 255
    labels[chips - unlabelled :] = 255
    dn = (rng.integers(600, 1000, (chips, len(BANDS), size, size)) + np.int64(4000) * masks[:, None]).astype(np.uint16)
    store = root / "store"
    store.mkdir(parents=True)
    np.save(store / "chips-00000.npy", dn)
    np.save(store / "labels-00000.npy", labels)
    index = pd.DataFrame({"chip_id": ids, "shard": 0, "row": range(chips), "split": "train"})
    number = index["row"] % 6
    index["location"] = [f"place{n % 3}" for n in number]
    index["datetime"] = [f"2020-0{n + 1}-10T10:00:00Z" for n in number]
    index["scene"] = index["location"] + "@" + index["datetime"]
    index["labelled"] = index["row"] < chips - unlabelled
    index["label_coverage_share"] = masks.mean(axis=(1, 2))
    index = index.assign(label_known_share=1.0, nodata_share=0.0, flags="", crs="", transform="", source_sha256="")
    for place, band in enumerate(BANDS):
        index = index.join(pd.DataFrame([band_statistics(chip[place], band, nodata=0) for chip in dn]))
    tables.INDEX.write(index, store / "index.parquet")
    for run, predicted in (("round1", masks), ("round2", masks[:, :, ::-1])):
        (root / "oof" / run).mkdir(parents=True)
        np.save(root / "oof" / run / "none.npy", predicted * np.uint8(255))
        tables.OOF.write(pd.DataFrame({"chip_id": ids, "row": range(chips), "fold": 0}), root / f"oof/{run}/index.csv")
    labelled = ids[: chips - unlabelled]
    audit = pd.DataFrame({"chip_id": labelled, "suspicion": np.linspace(0.99, 0.01, len(labelled))})
    audit["reasons"] = [REASONS[n % 3] for n in range(len(labelled))]
    tables.AUDIT.write(audit.assign(false_share=0.25, missed_share=0.5), root / "audit.csv")
    return labelled


@dataclass
class Answer:
    """An answer of the server."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Site:
    """`cloudcover review` on the set below a folder; ended at the end of a `with` block."""

    def __init__(self, root: Path, reviewer: str = "Ada Lovelace") -> None:
        self.root, self.reviewer, self.port = root, reviewer, 0
        self.verdicts = root / "config" / "verdicts.csv"

    def command(self) -> list[str]:
        """The command line."""
        options = {
            "store": self.root / "store", "audit": self.root / "audit.csv", "predictions": self.root / "oof",
            "verdicts": self.verdicts, "reviewer": self.reviewer, "port": self.port,
        }  # fmt: skip
        given = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
        return [sys.executable, "-m", "cloudcover", "review", "--no-browser", *given]

    def start(self) -> Site:
        """Starts the server, on the port of the last time if there was one, and waits for its address."""
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
        """Ends the server as a crash would."""
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Site:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.kill()
        assert self.process.stdout
        self.process.stdout.close()

    def ask(self, path: str, body: Any = None, headers: Mapping[str, str | None] | None = None) -> Answer:
        """A request as the page sends it; `headers` overrides single headers, None leaves one out."""
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
        """The verdicts on disk, by chip."""
        return tables.VERDICTS.read(self.verdicts).set_index("chip_id", drop=False)
