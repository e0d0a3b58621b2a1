"""Predicting every chip by the models that did not see its scene."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from cloudcover import tables
from cloudcover.files import atomic
from cloudcover.params import ComputeParams, Tta
from cloudcover.predict.predictor import Predictor
from cloudcover.predictions import LEVELS
from cloudcover.store import Store


def predict_oof(
    store: Store,
    folds: pd.DataFrame,
    models: Mapping[int, Sequence[Path]],
    policies: Sequence[Tta],
    compute: ComputeParams,
    out: Path,
) -> pd.DataFrame:
    """Predicts each chip by the models of its own fold, once per policy.

    Args:
        store: the packed chips.
        folds: `tables.FOLDS`.
        models: model folders by the fold that they did not see.
        policies: test-time augmentations.
        compute: device, precision, batch.
        out: gets `<policy>.npy` (N x H x W uint8, round(p x 255)), `seconds.csv` (`tables.SECONDS`: prediction alone,
            without reading chips and loading models) and `manifest.csv` (`tables.OOF`), last.
    """
    order = folds.sort_values("chip_id", ignore_index=True)
    order["row"] = order.index
    size = store.chips(order["chip_id"][:1].tolist()).shape[-1]
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        arrays = {}
        seconds = dict.fromkeys(policies, 0.0)
        for policy in policies:
            part = stack.enter_context(atomic(out / f"{policy}.npy"))
            arrays[policy] = np.lib.format.open_memmap(part, "w+", np.uint8, (len(order), size, size))
        bar = stack.enter_context(tqdm(total=len(order) * len(policies), desc="predict", unit="chip", disable=None))
        for fold in sorted(models):
            chips = order[order["fold"] == fold]
            for policy in policies:
                predictor = Predictor(models[fold], policy, compute.device, compute.precision, compute.prediction_batch)
                rows = dict(zip(chips["chip_id"], chips["row"], strict=True))
                for batch in store.batches(chips["chip_id"], predictor.batch):
                    dn, limits = store.chips(batch), store.limits(batch)
                    begin = time.perf_counter()
                    probabilities = predictor.probabilities(dn, limits)
                    seconds[policy] += time.perf_counter() - begin
                    arrays[policy][[rows[c] for c in batch]] = np.rint(probabilities * LEVELS).astype(np.uint8)
                    bar.update(len(batch))
        for array in arrays.values():
            array.flush()
    taken = pd.DataFrame({"tta": list(seconds), "chips": len(order), "seconds": list(seconds.values())})
    tables.SECONDS.write(taken, out / "seconds.csv")
    tables.OOF.write(order[["chip_id", "row", "fold"]], out / "manifest.csv")
    return order
