"""Download speed of many small files from Azurite on loopback: this project, obstore alone, and the original's way.

    python -m venv .venv/original && .venv/original/bin/pip install "cloudpathlib[azure]==0.26.0" tqdm
    python benchmarks/download.py --quick
    python benchmarks/download.py --files 8000 --repeats 5 --json download.json

All of them list the container and fetch 64 KiB TIFFs with the same SAS, in turns within one run and after one that is
not counted; the medians are compared. This project also checks length and header of each file, hashes it, and writes
a manifest; obstore alone (16 threads) and the original's way (`baselines/original_download.py`, in a separate
environment) only write the files. Azurite is one process and limits the rate, so the processor time of each client is
shown as well.

Also measured: a second run, which transfers nothing.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

import numpy as np
import obstore
import pandas as pd
from obstore.store import AzureStore
from rasterio.transform import from_origin

from cloudcover.config.sections import DataParams
from cloudcover.data.geotiff import encode_geotiff
from cloudcover.runtime.files import derive_seed, write_json
from cloudcover.sources.remote.fetch import fetch
from harness.azurite import AZURITE_ACCOUNT, Azurite, run_azurite

ROOT = Path(__file__).resolve().parents[1]

BANDS = ["B02", "B03", "B04", "B08"]
PIXEL_BYTES = 1 << 16


def make(root: Path, files: int, seed: int) -> None:
    """Write a set of unlabelled chips of 128 x 256 pixels: a TIFF of 64 KiB of random pixels per band."""
    rng = np.random.default_rng(derive_seed(seed, "download"))
    root.mkdir()
    place = {"crs": "EPSG:32633", "transform": from_origin(5e5, 5e6, 10, 10)}
    template = encode_geotiff(np.zeros((128, 256), np.uint16), place)
    chips = [f"c{i:05d}" for i in range(files // len(BANDS))]
    for chip in chips:
        (root / "train_features" / chip).mkdir(parents=True)
        for band in BANDS:
            content = template.replace(bytes(PIXEL_BYTES), rng.bytes(PIXEL_BYTES))
            (root / "train_features" / chip / f"{band}.tif").write_bytes(content)
    table = pd.DataFrame({"chip_id": chips, "location": "x", "datetime": "", "cloudpath": ""})
    table.to_csv(root / "train_metadata.csv", index=False)


def by_project(folder: Path) -> None:
    """Download by this project's azure source."""
    fetch(DataParams.model_validate({"source": "azure", "chip_size": 256}), folder)


def by_obstore(folder: Path) -> None:
    """Download by obstore alone, without checks."""
    url = urlsplit(os.environ["CLOUDCOVER_SAS_URL"])
    endpoint, _, container = f"{url.scheme}://{url.netloc}{url.path}".rpartition("/")
    store = AzureStore(
        container,
        account_name=AZURITE_ACCOUNT,
        endpoint=endpoint,
        sas_key=url.query,
        client_options={"allow_http": True},
    )

    def one(path: str) -> None:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(obstore.get(store, path).bytes())

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(one, [item["path"] for item in obstore.list(store, chunk_size=1000).collect()]))


def by_original(python: Path) -> Callable[[Path], None]:
    """Return the original's way, in its own environment."""

    def run(folder: Path) -> None:
        program = ROOT / "benchmarks" / "baselines" / "original_download.py"
        result = subprocess.run([python, program, folder], check=True, stdout=subprocess.PIPE, text=True)
        run.seconds = json.loads(result.stdout.splitlines()[-1])["seconds"]  # type: ignore[attr-defined]

    return run


def timed(way: Callable[[Path], None], folder: Path) -> tuple[float, float]:
    """Measure seconds and processor seconds of one run; the former exclude the start of another interpreter."""

    def processor() -> float:
        usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(usage.ru_utime + usage.ru_stime for usage in usages)

    before, start = processor(), time.perf_counter()
    way(folder)
    return getattr(way, "seconds", time.perf_counter() - start), processor() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2,000 files, one repeat")
    parser.add_argument("--files", type=int, default=4000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="not used: nothing here runs on a GPU")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--original-python", type=Path, default=ROOT / ".venv" / "original" / "bin" / "python")
    arguments = parser.parse_args()
    files, repeats = (2000, 1) if arguments.quick else (arguments.files, arguments.repeats)
    if not arguments.original_python.exists():
        parser.error(f"{arguments.original_python} does not exist: see the first line of this program's --help")
    logging.disable(logging.WARNING)

    ways = {"project": by_project, "obstore alone": by_obstore, "original": by_original(arguments.original_python)}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    work: dict[str, list[float]] = {name: [] for name in ways}
    again: list[float] = []
    with tempfile.TemporaryDirectory() as temporary, run_azurite() as server:
        folder = Path(temporary)
        make(folder / "set", files, arguments.seed)
        publish(server, folder / "set")
        by_obstore(folder / "out")  # Azurite's first requests take twice as long: its code is not compiled yet
        shutil.rmtree(folder / "out")
        for _ in range(repeats):
            for name, way in ways.items():
                target = folder / "out"
                elapsed, processor = timed(way, target)
                seconds[name].append(elapsed)
                work[name].append(processor)
                count = len(list(target.rglob("B*.tif")))
                if count != files:
                    raise RuntimeError(f"{name} brought {count} of {files} files")
                if name == "project":
                    again.append(timed(way, target)[0])
                shutil.rmtree(target)

    print(f"{files} files of 64 KiB, medians of {repeats} runs")
    print(f"{'way':15} {'seconds':>9} {'files/s':>9} {'processor seconds':>18}")
    for name in ways:
        print(f"{name:15} {median(seconds[name]):9.2f} {files / median(seconds[name]):9.0f} {median(work[name]):18.2f}")
    ratio = median(seconds["original"]) / median(seconds["project"])
    print(f"{ratio:.1f} times as fast as the original's way; a second run takes {median(again):.2f} s")
    if arguments.json:
        result = {
            "files": files,
            "files_per_s": files / median(seconds["project"]),
            "files_per_s_obstore": files / median(seconds["obstore alone"]),
            "files_per_s_original": files / median(seconds["original"]),
            "ratio_download": ratio,
            "seconds_second_run": median(again),
        }
        write_json(arguments.json, result)


def publish(server: Azurite, folder: Path) -> None:
    """Upload the set, and put the SAS where both ways read it."""
    server.upload("benchmark", folder)
    os.environ["CLOUDCOVER_SAS_URL"] = server.sas("benchmark", hours=24)


if __name__ == "__main__":
    main()
