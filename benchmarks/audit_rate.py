"""Speed of the label audit without a network; run by `audit.py --rate`."""

from __future__ import annotations

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage

from cloudcover.config.sections import DataParams, SyntheticParams
from cloudcover.data.pack import pack
from cloudcover.data.store import ChipStore
from cloudcover.labels.geometry import BATCH, geometry_evidence
from cloudcover.labels.spectral import separability, spectral_evidence
from cloudcover.sources.fetch import fetch


def rates(seed: int, chips: int = 64, size: int = 512) -> pd.DataFrame:
    """Measure the rates of the evidence without a network on chips of 512 pixels, on one core and on two.

    Colours are examined once, shapes in each of two judgements. The prediction is the label, moved and blurred.
    `minutes` is the time for 11,748 chips, `minutes_undisturbed` the same by processor time, as without other work.
    """
    with tempfile.TemporaryDirectory() as folder:
        data = DataParams(chip_size=size)
        fetch(
            data, SyntheticParams(chips=chips, scenes=8, unlabelled=0), seed, Path(folder) / "raw", Path(folder) / "t"
        )
        pack(Path(folder) / "raw", Path(folder) / "store", Path(folder) / "quarantine.csv", data)
        store = ChipStore(Path(folder) / "store")
        bands, batches = store.bands(), list(store.batches(store.index["chip_id"], BATCH))

        def colours(chip_ids: list[str]) -> None:
            dn, labels = store.chips(chip_ids), store.labels(chip_ids)
            spectral_evidence(dn, labels, bands)
            separability(dn, labels)

        def shapes(chip_ids: list[str]) -> None:
            labels = store.labels(chip_ids)
            moved = np.roll(labels == 1, (9, 5), axis=(1, 2)).astype(np.float32)
            geometry_evidence(ndimage.uniform_filter(moved, (0, 9, 9)), labels)

        rows = []
        for cores in (1, 2):
            row: dict[str, float] = {"cores": cores}
            for name, look in (("colours", colours), ("shapes", shapes)):
                start, used = time.perf_counter(), time.process_time()
                with ThreadPoolExecutor(cores) as threads:
                    list(threads.map(look, batches))
                row[f"{name}_chips_per_s"] = chips / (time.perf_counter() - start)
                row[f"{name}_processor_s_per_chip"] = (time.process_time() - used) / chips
            rows.append(row)
    table = pd.DataFrame(rows)
    whole = 1 / table["colours_chips_per_s"] + 2 / table["shapes_chips_per_s"]
    used_s = table["colours_processor_s_per_chip"] + 2 * table["shapes_processor_s_per_chip"]
    return table.assign(minutes=11_748 * whole / 60, minutes_undisturbed=11_748 * used_s / table["cores"] / 60)
