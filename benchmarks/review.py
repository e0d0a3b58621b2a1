"""Speed of the review page at full scale.

    python benchmarks/review.py --raw my-chips --chip-size 512

Packs a set in the challenge's layout, repeats its index up to 11,748 labelled chips in scenes of 17 with an audit, a
prediction (by brightness) and a verdict for each, and starts `cloudcover review` on it. Measured are the start, the
list of all chips, pictures one after the other, a verdict until it is on disk, and, where Chromium is installed, the
time from a key to the drawn chip: of a chip that was fetched ahead (a reviewer's next one), and of one that was not.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter

from cloudcover.config.sections import DataParams
from cloudcover.data import tables
from cloudcover.data.layout import write_file_table
from cloudcover.data.pack import pack
from cloudcover.data.store import ChipStore
from cloudcover.sources.local import fetch
from harness.review_site import Site

SCENE = 17
"""Chips of a scene, as in the challenge."""
SHOW = """(key) => new Promise((done) => {
    delete document.body.dataset.drawn;
    const start = performance.now();
    new MutationObserver((_, self) => {
        if (!document.body.dataset.drawn) return;
        self.disconnect();
        requestAnimationFrame(() => done(performance.now() - start));
    }).observe(document.body, { attributeFilter: ["data-drawn"] });
    document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
})"""


def make(root: Path, raw: Path, size: int, chips: int) -> list[str]:
    """Write store, audit, predictions and verdicts below `root`; return the chips."""
    params = DataParams.model_validate({"source": "local", "path": str(raw), "chip_size": size})
    fetch(params, root / "raw")
    write_file_table(root / "raw", "benchmark")
    pack(root / "raw", root / "store", root / "quarantine.csv", params)
    few = ChipStore(root / "store").index.reset_index(drop=True)
    index = few.iloc[np.arange(chips) % len(few)].reset_index(drop=True)
    scene = np.arange(chips) // SCENE
    index["chip_id"] = [f"chip{i:05d}" for i in range(chips)]
    index["location"] = [f"place {s // 8:03d}" for s in scene]
    index["datetime"] = [f"2020-{s % 12 + 1:02d}-{s % 28 + 1:02d}T10:00:00Z" for s in scene]
    index["scene"] = index["location"] + "@" + index["datetime"]
    index["labelled"], index["label_coverage_share"] = True, 0.5
    tables.INDEX.write(index, root / "store" / "index.parquet")
    rng = np.random.default_rng(0)
    ids = index["chip_id"]
    audit = pd.DataFrame({"chip_id": ids, "suspicion": rng.random(chips), "reasons": "false_cloud coarse"})
    tables.AUDIT.write(audit.assign(**{f"evidence{k}": rng.random(chips) for k in range(25)}), root / "audit.csv")
    (root / "oof").mkdir()
    bright = ChipStore(root / "store").chips(ids[: len(few)].tolist()).mean(axis=1) / 5000  # smooth, as predictions are
    bright = gaussian_filter(np.clip(bright, 0, 1), (0, 2, 2))
    np.save(root / "oof" / "none.npy", np.rint(255 * bright).astype(np.uint8))
    rows = np.arange(chips) % len(few)
    tables.OOF.write(pd.DataFrame({"chip_id": ids, "row": rows, "fold": 0}), root / "oof" / "manifest.csv")
    verdicts = pd.DataFrame({"chip_id": ids, "verdict": "clean", "reviewer": "Ada", "reason": ""})
    tables.VERDICTS.write(verdicts.assign(time="2026-01-01T00:00:00Z"), root / "config" / "verdicts.csv")
    return list(ids)


def measure(name: str, calls: list[Callable[[], object]]) -> None:
    """Print median and 95th percentile of the calls' times."""
    times = []
    for call in calls:
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    report(name, times)


def report(name: str, times_ms: list[float]) -> None:
    """Print a row of the table."""
    print(f"{name:<46}{np.median(times_ms):8.1f}{np.percentile(times_ms, 95):8.1f}  ms, {len(times_ms)} times")


def in_browser(site: Site) -> None:
    """Measure the times from a key press to the drawn chip."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        print("no Chromium: the time until a chip is drawn was not measured")
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.goto(site.address)
        page.wait_for_selector("body[data-shown]")
        ahead, cold = [], []
        for _ in range(20):
            page.wait_for_timeout(600)  # a quick reviewer's time for a chip
            ahead.append(page.evaluate(SHOW, "ArrowRight"))
        for start in range(6):
            page.goto(f"{site.address}&{start}#order=least")
            page.wait_for_selector("body[data-shown]")
            page.wait_for_timeout(600)
            cold.append(page.evaluate(SHOW, "End"))
        report("key to drawn chip, fetched ahead", ahead)
        report("key to drawn chip, not fetched ahead", cold)
        browser.close()


def main() -> None:
    """Read the options, make the set, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raw", type=Path, required=True, help="folder in the challenge's layout")
    parser.add_argument("--chip-size", type=int, default=512)
    parser.add_argument("--chips", type=int, default=11_748)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ids = make(Path(folder), options.raw, options.chip_size, options.chips)
        some = ids[:: max(1, len(ids) // 100)][:100]
        start = time.perf_counter()
        with Site(Path(folder)) as site:
            print(f"{len(ids)} chips of {options.chip_size} px, load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
            print(f"start {time.perf_counter() - start:.1f} s; list of {len(site.ask('/api/chips').body) / 1e3:.0f} kB")
            print(f"{'':<46}{'median':>8}{'p95':>8}")
            measure("list of all chips", [lambda: site.ask("/api/chips")] * 20)
            for name in ("true", "false", "masks", "true?small", "masks?small"):
                measure(f"picture {name}", [lambda c=c, n=name: site.ask(f"/api/chips/{c}/{n}") for c in some])
            measure("what is known of a chip", [lambda c=c: site.ask(f"/api/chips/{c}") for c in some])
            rows = {c: [v, t] for c, _, v, t in json.loads(site.ask("/api/chips").body)["chips"]}
            token = {"X-Review-Token": site.ask("/api/session").json()["token"]}

            def judge(chip: str) -> None:
                assert (
                    site.ask(
                        "/api/verdicts", {"chips": [chip], "verdict": "bad", "seen": {chip: rows[chip]}}, token
                    ).status
                    == 200
                )

            measure(f"verdict on disk, beside {len(ids)} others", [lambda c=c: judge(c) for c in some[:30]])
            in_browser(site)


if __name__ == "__main__":
    main()
