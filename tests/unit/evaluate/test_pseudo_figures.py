"""Quality of pseudo-labels: on pixels used for training, on all pixels, by cover, and against what was known before."""

import numpy as np
import pandas as pd
import pytest

from cloudcover.data import tables
from cloudcover.evaluate.pseudo import JudgedRound
from cloudcover.masks.out_of_fold import OutOfFold
from cloudcover.masks.pseudo import PseudoLabels
from cloudcover.masks.truth import TrueMasks
from cloudcover.predict.outputs import write_mask
from helpers.training import make_store

IDS = ["c000", "c001", "c002"]
GRID = (10.0, 0.0, 500000.0, 0.0, -10.0, 4000000.0)


def square(value, rows=slice(None)):
    """A mask of 0 with `value` in some rows."""
    mask = np.zeros((64, 64), np.uint8)
    mask[rows] = value
    return mask


@pytest.fixture
def judged(tmp_path):
    """Three candidates: all cloud, and partly cloudy in the upper half, accepted; clear, refused."""
    store = make_store(tmp_path, chips=3, scenes=3, unlabelled=0)
    true = [square(1), square(1, slice(32)), square(0)]
    for chip, mask in zip(IDS, true, strict=True):
        write_mask(tmp_path / f"truth/{chip}.tif", mask, "EPSG:32633", GRID)
    truth = pd.DataFrame({"chip_id": IDS, "path": [f"{c}.tif" for c in IDS], "sha256": "", "label_iou": 0.5})
    tables.TRUTH.write(truth.assign(error=["shifted", "shifted", ""]), tmp_path / "truth/masks.csv")

    made = [square(1), square(1, slice(28)), square(0)]  # four rows of cloud missed in the second
    taught = [made[0], made[1].copy(), made[2]]
    taught[1][24:36] = 255  # where nobody is sure
    folder = tmp_path / "round1"
    folder.mkdir()
    np.save(folder / "masks.npy", np.stack(taught))
    table = pd.DataFrame({"chip_id": IDS, "verdict": "bad", "label": ["pseudo", "pseudo", "none"], "source": "audit"})
    table = table.assign(reason="", score=0.9, time="", row=range(3), confident_share=0.9, coverage_share=0.5)
    table = table.assign(agreement_iou=0.1, changed_pixels_share=np.nan, change=["added", "added", "none"])
    tables.ROUND.write(table, folder / "manifest.csv")

    def predicted(name, masks):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "d4.npy", np.stack(masks) * np.uint8(255))
        order = pd.DataFrame({"chip_id": IDS, "row": range(3), "fold": 0})
        tables.OOF.write(order, tmp_path / name / "index.csv")
        return OutOfFold([tmp_path / name])

    own = predicted("own", made)
    before = predicted("before", [made[0], square(1, slice(16)), made[2]])
    known = truth.assign(error=["shifted", "shifted", ""])
    pseudo, true_masks = PseudoLabels(folder / "manifest.csv"), TrueMasks(tmp_path / "truth/masks.csv")
    return JudgedRound(pseudo, own, before, "d4", true_masks, store).figures(known)


def test_a_mask_is_judged_where_it_teaches_and_over_all_its_pixels(judged):
    assert judged["jaccard"] == 1
    assert judged["jaccard_all"] == pytest.approx((64 + 28) / (64 + 32))
    assert judged["jaccard_partly"] == pytest.approx(28 / 32)
    assert judged["union_pixels"] == 64 * (64 + 24)


def test_a_mask_is_set_beside_what_the_run_before_knew(judged):
    assert judged["jaccard_known"] == pytest.approx((64 + 16) / (64 + 32))
    assert judged["new_share"] == pytest.approx(8 / (64 + 52))  # rows 16 to 23, of those that are taught


def test_figures_are_by_band_of_true_cover(judged):
    bands = judged["by_coverage"]
    assert bands["full"] == {"candidates": 1, "accepted": 1, "wrong_share": 0, "wrong_share_known": 0}
    assert bands["partly"] == {"candidates": 1, "accepted": 1, "wrong_share": 4 / 64, "wrong_share_known": 16 / 64}
    assert bands["clear"] == {"candidates": 1, "accepted": 0}


def test_wrong_labels_are_replaced_and_mended(judged):
    assert (judged["candidates"], judged["accepted"], judged["accepted_share"]) == (3, 2, pytest.approx(2 / 3))
    assert (judged["replaced_share"], judged["mended_share"]) == (1, 1)
