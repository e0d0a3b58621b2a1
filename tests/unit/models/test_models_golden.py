"""Augmentations, losses and networks give what they gave when `golden_engine.py` was last run."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.golden_engine import FILE, Arrays, drawn_chips, real_chips, results
from helpers.paths import SHARED


@pytest.fixture(scope="module")
def everything() -> Arrays:
    """Results of the computed chips, and of the real ones where they are at hand."""
    folder = SHARED / "real-chips"
    return results({"drawn": drawn_chips(), **({"real": real_chips(folder)} if folder.exists() else {})})


@pytest.mark.parametrize("kind", ["drawn", "real"])
def test_results_are_those_that_were_stored(kind, everything, request):
    if kind == "real":
        request.getfixturevalue("real_chips")
    found = {name: array for name, array in everything.items() if name.startswith(kind)}
    with np.load(FILE) as file:
        golden = {name: file[name] for name in file if name.startswith(kind)}
    assert set(found) == set(golden)
    for name, array in found.items():
        # Convolutions differ between processors in the last digits; a rounded pixel may move a mean of 256 by 1 / 256.
        scale = float(np.abs(golden[name]).max())
        limit = 5e-3 if name.endswith("labels") else 1e-3 * scale
        np.testing.assert_allclose(array, golden[name], rtol=0, atol=limit, err_msg=name)
