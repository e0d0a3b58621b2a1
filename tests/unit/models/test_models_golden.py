"""Augmentations, losses and networks give what they gave when `golden_engine.py` was last run."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.golden_engine import FILE, drawn_chips, real_chips, results


@pytest.mark.parametrize("kind", ["drawn", "real"])
def test_results_are_those_that_were_stored(kind, request):
    chips = drawn_chips() if kind == "drawn" else real_chips(request.getfixturevalue("real_chips"))
    found = results(*chips)
    with np.load(FILE) as file:
        golden = {name.removeprefix(f"{kind}/"): file[name] for name in file if name.startswith(kind)}
    assert set(found) == set(golden)
    for name, array in found.items():
        # Convolutions differ between processors in the last digits; a rounded pixel may move a mean of 256 by 1 / 256.
        scale = float(np.abs(golden[name]).max())
        limit = 5e-3 if name.endswith("labels") else 1e-3 * scale
        np.testing.assert_allclose(array, golden[name], rtol=0, atol=limit, err_msg=name)
