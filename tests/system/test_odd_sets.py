"""Sets without times, of one location, and with constant chips, on their way through the whole chain."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest

from cloudcover.data import tables
from harness.project import ONE_ROUND, TINY, Project
from helpers.layouts import make_layout, write_tif

CONSTANT, NEARLY, NAN = "c003", "c004", "c005"


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with a set of one location at unknown times, with a constant chip, a nearly constant one, and a NaN."""
    root = tmp_path_factory.mktemp("odd")
    source = root / "set"
    make_layout(source, chips=20, unlabelled=3)
    for table in source.glob("*_metadata.csv"):
        pd.read_csv(table).assign(location="here", datetime="").to_csv(table, index=False)
    rng = np.random.default_rng(0)
    shape = (64, 64)
    for path in source.glob("train_features/*/*.tif"):
        chip = path.parent.name
        if chip == CONSTANT:
            write_tif(path, np.full(shape, 700, np.uint16))
        elif chip == NEARLY:
            write_tif(path, rng.integers(700, 702, shape).astype(np.uint16))
        elif chip == NAN:
            pixels = np.full(shape, 0.07, np.float32)
            pixels[:, ::2] = math.nan
            write_tif(path, pixels)
    values = {
        **TINY, **ONE_ROUND, "folds": {"number": 2, "test_share": 0},
        "data": {**TINY["data"], "max_quarantined": 0.06, "source": "local", "path": str(source)},
        "prediction": {"tta": "none", "judge_tta": "none", "compare_tta": []},
    }  # fmt: skip
    return Project(root / "project", values, forks=True)


def test_a_set_of_one_scene_is_refused_with_the_remedies_which_lead_through_the_chain(odd):
    assert "there are 1: set folds.group to none" in odd.snakemake("data/folds.csv", check=False)
    odd.change("folds", "group", "none")
    refused = odd.snakemake("data/evidence/evidence.parquet", check=False)
    assert "add labels of another scene, or set labels.policy to human" in refused
    odd.change("labels", "policy", "human")
    odd.snakemake()
    index = tables.INDEX.read(odd.folder / "data/store/index.parquet").set_index("chip_id")
    assert set(index["scene"]) == {"here@undated"}
    assert "constant:B02" in index.loc[CONSTANT, "flags"]
    assert "constant:B02" in index.loc[NEARLY, "flags"]
    quarantine = tables.QUARANTINE.read(odd.folder / "data/quarantine.csv")
    assert quarantine["chip_id"].tolist() == [NAN]
    assert quarantine["reason"].str.contains("is float32, expected uint16").all()
    assert np.isfinite(index.select_dtypes("number").drop(columns="label_coverage_share")).all(axis=None)
    metrics = json.loads((odd.folder / "reports/metrics.json").read_text())
    assert all(math.isfinite(metrics[run]["jaccard"]) for run in ("baseline", "final"))
