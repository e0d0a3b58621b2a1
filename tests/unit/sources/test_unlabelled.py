"""Further chips without labels join the set and become candidates for pseudo-labels."""

import numpy as np
import pandas as pd
import pytest

from cloudcover.config.params import ParamsError, validate
from cloudcover.config.sections import DataParams, SyntheticParams
from cloudcover.data import tables
from cloudcover.data.layout import LayoutError
from cloudcover.data.pack import pack
from cloudcover.data.store import ChipStore
from cloudcover.labels.manifest import build_manifest
from cloudcover.pseudo_labels.label import candidates
from cloudcover.sources.fetch import fetch
from cloudcover.sources.verify import verify
from helpers.layouts import BANDS, make_layout, write_tif


@pytest.fixture
def bring(tmp_path):
    """Downloads a set of 6 chips with the further chips of `tmp_path/more`."""
    make_layout(tmp_path / "set", chips=6, unlabelled=1)

    def run(more: str | None = "more"):
        values = {"source": "local", "path": str(tmp_path / "set"), "chip_size": 64}
        data = DataParams.model_validate(values | ({"unlabelled": str(tmp_path / more)} if more else {}))
        fetch(data, SyntheticParams(), 0, tmp_path / "raw", tmp_path / "truth")
        return data, tmp_path / "raw"

    return run


def further(folder, *names):
    for number, name in enumerate(names):
        for band in BANDS:
            write_tif(folder / name / f"{band}.tif", np.full((64, 64), 1000 + number, np.uint16))


def test_they_are_packed_and_become_candidates(bring, tmp_path):
    further(tmp_path / "more", "mine1", "mine2")
    data, raw = bring()
    assert verify(raw).empty
    pack(raw, tmp_path / "store", tmp_path / "quarantine.csv", data)
    index = ChipStore(tmp_path / "store").index
    mine = index.loc[["mine1", "mine2"]]
    assert mine["split"].tolist() == ["unlabelled"] * 2
    assert mine["scene"].tolist() == ["mine1@undated", "mine2@undated"]
    assert not mine["labelled"].any()
    assert index["p50_B02_dn"][["mine1", "mine2"]].tolist() == [1000, 1001]
    params = validate({"labels": {"policy": "human"}}).labels
    folds = pd.DataFrame({"chip_id": index["chip_id"].to_numpy(), "fold": 0, "scene": "s"})
    manifest = build_manifest(None, tables.VERDICTS.empty(), index, folds, params)
    assert candidates(manifest, folds) == ["c005", "mine1", "mine2"]


def test_what_the_folder_no_longer_has_is_removed(bring, tmp_path):
    further(tmp_path / "more", "mine1", "mine2")
    bring()
    for file in (tmp_path / "more" / "mine2").iterdir():
        file.unlink()
    _, raw = bring()
    assert tables.METADATA.read(raw / "unlabelled_metadata.csv")["chip_id"].tolist() == ["mine1"]
    assert not (raw / "unlabelled_features" / "mine2").exists()
    bring(None)
    assert verify(raw).empty
    assert not list(raw.glob("unlabelled*"))


def test_a_missing_band_is_quarantined_by_name(bring, tmp_path):
    further(tmp_path / "more", "mine1")
    (tmp_path / "more" / "mine1" / "B04.tif").unlink()
    data, raw = bring()
    pack(raw, tmp_path / "store", tmp_path / "q.csv", data.model_copy(update={"max_quarantined": 0.5}))
    assert tables.QUARANTINE.read(tmp_path / "q.csv")[["chip_id", "band"]].to_numpy().tolist() == [["mine1", "B04"]]


def test_ids_of_the_set_an_empty_folder_and_a_synthetic_set_are_refused(bring, tmp_path):
    with pytest.raises(LayoutError, match=r"contains no chips, expected folders with B02\.tif"):
        bring()
    further(tmp_path / "more", "C001")
    with pytest.raises(LayoutError, match="the id of a chip of the set: C001"):
        bring()
    with pytest.raises(ParamsError, match="synthetic makes its own unlabelled chips"):
        validate({"data": {"source": "synthetic", "unlabelled": "x"}})
