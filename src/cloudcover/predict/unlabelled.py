"""Masks of the store's chips that have no label."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from cloudcover.data import ownership, tables
from cloudcover.data.chips import IGNORE_INDEX
from cloudcover.data.store import ChipStore
from cloudcover.predict.files import write_mask
from cloudcover.predict.folder import mask_of
from cloudcover.predict.predictor import Predictor
from cloudcover.runtime.files import sha256


def predict_unlabelled(store: ChipStore, predictor: Predictor, out: Path) -> pd.DataFrame:
    """Writes the mask of each chip without a label as `out/<chip_id>.tif` and lists them in `out/masks.csv`.

    Args:
        store: the packed chips.
        predictor: the models; policy, threshold and post-processing are theirs.
        out: folder of the masks; masks of earlier runs are removed.

    Returns:
        `tables.PREDICTIONS`, without rows if every chip has a label.

    Raises:
        FolderError: `out` holds files of somebody else, and no masks of an earlier run.
    """
    chips = store.index[~store.index["labelled"]]
    files = [f"{chip_id}.tif" for chip_id in chips["chip_id"]]
    ownership.claim(out)
    ownership.reserve(out, files)
    rows = []
    bar = tqdm(total=len(chips), desc="predict", unit="chip", disable=None)
    for batch in store.batches(chips["chip_id"], predictor.batch):
        dn = store.chips(batch)
        probabilities = predictor.probabilities(dn, store.percentiles(batch))
        masks = mask_of(probabilities, dn, predictor.threshold, predictor.card.nodata, predictor.postprocess)
        for chip_id, mask in zip(batch, masks, strict=True):
            path = out / f"{chip_id}.tif"
            crs, transform = map(str, chips.loc[chip_id, ["crs", "transform"]])
            write_mask(path, mask, crs, [float(v) for v in transform.split()])
            coverage = float(np.mean(mask[mask != IGNORE_INDEX] == 1)) if (mask != IGNORE_INDEX).any() else float("nan")
            rows.append({"chip_id": chip_id, "path": path.name, "sha256": sha256(path), "coverage_share": coverage})
        bar.update(len(batch))
    bar.close()
    frame = pd.DataFrame(rows, columns=list(tables.PREDICTIONS.columns))
    ownership.prune(out, files)
    tables.PREDICTIONS.write(frame, out / "masks.csv")
    return frame
