"""A bundle's masks of chips in the store: of the test part for the evaluation, of unlabelled chips for users."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from cloudcover.data import ownership, tables
from cloudcover.data.chips import IGNORE_INDEX
from cloudcover.data.store import ChipStore
from cloudcover.predict.outputs import tags_of, write_mask
from cloudcover.predict.predictor import Predictor
from cloudcover.runtime.allocator import keep_buffers
from cloudcover.runtime.arrays import create_array
from cloudcover.runtime.files import atomic, sha256


def predict_masks(
    store: ChipStore, chip_ids: Sequence[str], predictor: Predictor
) -> Iterator[tuple[list[str], NDArray[np.uint8]]]:
    """Predict masks in batches: yield chip ids and n x H x W uint8 of {0, 1, 255}, 255 without data."""
    store.require_bands(predictor.card.bands, "the model")
    keep_buffers()
    with tqdm(total=len(chip_ids), desc="predict", unit="chip", disable=None) as bar:
        for batch in store.batches(chip_ids, predictor.batch):
            yield batch, predictor.masks(store.chips(batch), store.percentiles(batch))
            bar.update(len(batch))


def predict_test(store: ChipStore, folds: pd.DataFrame, predictor: Predictor, masks: Path, index: Path) -> None:
    """Write the masks of the test part for the evaluation.

    Args:
        store: The packed chips.
        folds: `tables.FOLDS` of the test part.
        predictor: The bundle.
        masks: Output file, N x H x W uint8 of {0, 1, 255}.
        index: Output table by `tables.OOF` that relates rows to chips.
    """
    order = folds.sort_values("chip_id", ignore_index=True)
    order["row"] = order.index
    size = store.chips(store.index.index[:1].tolist()).shape[-1]
    with atomic(masks) as part:
        array = create_array(part, np.uint8, (len(order), size, size))
        row = 0
        for batch, made in predict_masks(store, order["chip_id"].tolist(), predictor):
            array[row : row + len(batch)] = made
            row += len(batch)
        array.flush()
    tables.OOF.write(order[["chip_id", "row", "fold"]], index)


def predict_unlabelled(store: ChipStore, predictor: Predictor, out: Path) -> pd.DataFrame:
    """Write the mask of each unlabelled chip as `out/<chip_id>.tif`, and list the masks in `out/masks.csv`.

    Args:
        store: The packed chips.
        predictor: The models, with their policy, threshold and post-processing.
        out: Folder of the masks; masks of earlier runs are removed.

    Returns:
        `tables.PREDICTIONS`, without rows if every chip has a label.

    Raises:
        FolderError: `out` contains somebody else's files and no masks of an earlier run.
    """
    chips = store.index[~store.index["labelled"]]
    files = [f"{chip_id}.tif" for chip_id in chips["chip_id"]]
    ownership.claim(out)
    ownership.reserve(out, files)
    tags = tags_of(predictor, buffer_m=0, min_area_m2=0)
    rows = []
    for batch, masks in predict_masks(store, chips["chip_id"].tolist(), predictor):
        for chip_id, mask, place in zip(batch, masks, store.places(batch), strict=True):
            path = out / f"{chip_id}.tif"
            write_mask(path, mask, *place, tags)
            coverage = float(np.mean(mask[mask != IGNORE_INDEX] == 1)) if (mask != IGNORE_INDEX).any() else float("nan")
            rows.append({"chip_id": chip_id, "path": path.name, "sha256": sha256(path), "coverage_share": coverage})
    frame = pd.DataFrame(rows, columns=list(tables.PREDICTIONS.columns))
    ownership.prune(out, files)
    tables.PREDICTIONS.write(frame, out / "masks.csv")
    return frame
