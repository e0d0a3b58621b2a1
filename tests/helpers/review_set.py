"""A small set to review, and `cloudcover review` on it as a process of its own, for the tests of the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from cloudcover.data import tables
from cloudcover.data.statistics import band_statistics
from helpers.layouts import blob

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
