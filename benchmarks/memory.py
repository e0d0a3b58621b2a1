"""Peak memory of training from a store of 1,000 and of 10,000 chips.

    python benchmarks/memory.py --quick

Each store has 100 packed chips under many names: hard links of the shards and an index of full length. So it costs no
disk, while every chip has its own place in the memory maps. A process per store trains one epoch; `--quick`
stops after 50 steps. What counts is RssAnon, the memory that the process holds for itself; pages of the maps belong to
the page cache and can be dropped at any time (RssFile, also printed).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import cloudcover  # noqa: F401  (first: it makes torchvision importable with a CPU build of torch)

PACKED = 100
"""Number of different chips."""
SIZE = 64


def enlarge(store: Path, out: Path, copies: int) -> None:
    """Make a store that contains the chips of `store` `copies` times, under different names."""
    import pandas as pd

    from cloudcover.data import tables

    index = tables.INDEX.read(store / "index.parquet")
    shards = int(index["shard"].max()) + 1
    out.mkdir()
    parts = []
    for copy in range(copies):
        for kind in ("chips", "labels"):
            for shard in range(shards):
                name = f"{kind}-{copy * shards + shard:05d}.npy"
                (out / name).hardlink_to(store / f"{kind}-{shard:05d}.npy")
        renamed = {name: index[name] + f"-{copy:03d}" for name in ("chip_id", "scene")}
        parts.append(index.assign(**renamed, shard=copy * shards + index["shard"]))
    tables.INDEX.write(pd.concat(parts).sort_values("chip_id"), out / "index.parquet")


class Peak:
    """A monitor of this process's memory: the largest RssAnon and RssFile [MiB]."""

    def __init__(self) -> None:
        self.figures = {"RssAnon": 0.0, "RssFile": 0.0}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            for line in Path("/proc/self/status").read_text().splitlines():
                name, _, value = line.partition(":")
                if name in self.figures:
                    self.figures[name] = max(self.figures[name], int(value.split()[0]) / 1024)

    def stop(self) -> dict[str, float]:
        """End the measurement."""
        self._stop.set()
        self._thread.join()
        return self.figures


def train(folder: Path, steps: int | None, seed: int, device: str) -> dict[str, float]:
    """Measure the peak memory of an epoch [MiB], or of its first steps."""
    from itertools import islice

    import pandas as pd
    import torch

    from cloudcover.config.params import Params
    from cloudcover.data.store import ChipStore
    from cloudcover.models.build import build_model
    from cloudcover.models.normalize import Normalize
    from cloudcover.runtime.device import resolve_device
    from cloudcover.train.data import BatchLoader
    from cloudcover.train.learner import Learner

    torch.manual_seed(seed)
    params, store, device = Params(), ChipStore(folder), resolve_device(device)
    items = pd.DataFrame({"chip_id": store.index["chip_id"].to_numpy(), "label": "human", "weight": 1.0})
    batches = BatchLoader(store, items, params.training.batch_size, seed, device=device)
    network = build_model(params.model, params.data.bands).to(device)
    scaler = Normalize(params.input, params.data, reuse=device == "cpu")
    learner = Learner(network, scaler, params.training, params.augmentation, len(batches), seed)
    peak = Peak()
    learner.train_epoch(islice(batches, steps), 0, lambda: None)
    return peak.stop()


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="50 steps instead of an epoch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--set", type=Path, default=Path("benchmarks/out"), help="folder for the chips")
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.store:
        peak = train(options.store, 50 if options.quick else None, options.seed, options.device)
        print(json.dumps(peak))
        return

    from chips512 import make

    from cloudcover.runtime.files import write_json

    _, packed = make(options.set, PACKED, options.seed, SIZE)
    figures: dict[str, float] = {}
    print(f"{'chips':>8} {'RssAnon MiB':>12} {'RssFile MiB':>12}")
    with tempfile.TemporaryDirectory(dir=options.set) as folder:
        for chips in (1_000, 10_000):
            store = Path(folder) / f"store-{chips}"
            enlarge(packed, store, chips // PACKED)
            command = [sys.executable, __file__, *sys.argv[1:], "--store", str(store)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            peak = json.loads(done.stdout.splitlines()[-1])
            figures |= {f"{name.lower()}_mib_{chips}": value for name, value in peak.items()}
            print(f"{chips:8} {peak['RssAnon']:12.0f} {peak['RssFile']:12.0f}")
    figures["ratio_memory"] = figures["rssanon_mib_10000"] / figures["rssanon_mib_1000"]
    print(f"ratio_memory {figures['ratio_memory']:.3f}")
    if options.json:
        write_json(options.json, figures)


if __name__ == "__main__":
    main()
