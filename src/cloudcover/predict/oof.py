"""Prediction of every chip by the models that have not seen its scene."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from cloudcover.augment import tta
from cloudcover.config.sections import ComputeParams, Tta
from cloudcover.data import tables
from cloudcover.data.store import ChipStore
from cloudcover.masks.codec import encode_predictions
from cloudcover.predict.predictor import Predictor
from cloudcover.runtime.allocator import keep_buffers
from cloudcover.runtime.arrays import create_array
from cloudcover.runtime.files import atomic


def predict_oof(
    store: ChipStore,
    folds: pd.DataFrame,
    models: Mapping[int, Sequence[Path]],
    policies: Sequence[Tta],
    compute: ComputeParams,
    out: Path,
) -> pd.DataFrame:
    """Predict each chip by the models of its own fold, once per view; a policy is the mean of its views.

    Args:
        store: The packed chips.
        folds: `tables.FOLDS` of the chips to predict; may be empty.
        models: Model folders by the fold that they have not seen; several models of a fold are averaged.
        policies: Test-time augmentations.
        compute: Device, precision and batch size.
        out: Output folder for `<policy>.npy` (N x H x W uint8, round(p x 255)), `seconds.csv` (`tables.SECONDS`:
            prediction time of the policy's views, without reading chips and loading models) and, written last,
            `index.csv` (`tables.OOF`).

    Raises:
        KeyError: A fold has no model.
        ValueError: A model was made for other bands than those of the store.
    """
    order = folds.sort_values("chip_id", ignore_index=True)
    order["row"] = order.index
    size = store.chips(store.index.index[:1].tolist()).shape[-1]
    out.mkdir(parents=True, exist_ok=True)
    keep_buffers()
    with ExitStack() as stack:
        arrays = {}
        for policy in policies:
            part = stack.enter_context(atomic(out / f"{policy}.npy"))
            arrays[policy] = create_array(part, np.uint8, (len(order), size, size))
        views = list(dict.fromkeys(view for policy in policies for view in tta.POLICIES[policy]))
        seconds = dict.fromkeys(views, 0.0)
        bar = stack.enter_context(tqdm(total=len(order), desc="predict", unit="chip", disable=None))
        for fold in sorted(set(order["fold"])):
            predictor = Predictor(models[fold], "none", compute.device, compute.precision, compute.prediction_batch)
            store.require_bands(predictor.card.bands, str(predictor.folders[0]))
            chips = order[order["fold"] == fold]
            rows = dict(zip(chips["chip_id"], chips["row"], strict=True))
            for batch in store.batches(chips["chip_id"], predictor.batch):
                dn, percentiles = store.chips(batch), store.percentiles(batch)
                predictor.of_view(
                    dn[:1], percentiles[:1], views[0]
                )  # the setup at first use must not count as time of a view
                seen = {}
                for view in views:
                    begin = time.perf_counter()
                    seen[view] = predictor.of_view(dn, percentiles, view)
                    seconds[view] += time.perf_counter() - begin
                for policy in policies:
                    mean = np.mean([seen[view] for view in tta.POLICIES[policy]], axis=0)
                    arrays[policy][[rows[c] for c in batch]] = encode_predictions(mean)
                bar.update(len(batch))
        for array in arrays.values():
            array.flush()
    taken = [sum(seconds[view] for view in tta.POLICIES[policy]) for policy in policies]
    times = pd.DataFrame({"tta": list(policies), "chips": len(order), "seconds": taken})
    tables.SECONDS.write(times, out / "seconds.csv")
    tables.OOF.write(order[["chip_id", "row", "fold"]], out / "index.csv")
    return order
