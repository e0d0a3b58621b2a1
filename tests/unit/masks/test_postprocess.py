"""Post-processing: each step does what it promises, is idempotent, and is off by default."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import ValidationError
from scipy import ndimage

from cloudcover.masks.decision import InferenceSettings, apply_temperature
from cloudcover.masks.postprocess import NOTHING, Postprocess, Triplet

MASKS = hnp.arrays(np.bool_, (2, 9, 11))
LEVELS = hnp.arrays(np.float32, (2, 6, 7), elements=st.floats(0, 1, width=32))
STEPS = [
    {"opening_pixels": 3}, {"closing_pixels": 3}, {"closing_pixels": 5}, {"hole_pixels": 4}, {"min_area_pixels": 5},
]  # fmt: skip


def picture(*rows: str) -> np.ndarray:
    """One chip; # is cloud."""
    return np.array([[[c == "#" for c in row] for row in rows]])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(probabilities=LEVELS, threshold=st.floats(0.1, 0.9))
def test_nothing_is_done_by_default(probabilities, threshold):
    np.testing.assert_array_equal(NOTHING.masks(probabilities, threshold), probabilities > threshold)


@pytest.mark.parametrize("step", STEPS)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(mask=MASKS)
def test_a_step_on_masks_done_twice_changes_nothing_more(step, mask):
    once = Postprocess(**step).clean(mask)
    np.testing.assert_array_equal(Postprocess(**step).clean(once), once)
    shrinks = "opening_pixels" in step or "min_area_pixels" in step
    assert (once <= mask).all() if shrinks else (once >= mask).all()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(mask=MASKS, flip=st.sampled_from([1, 2]))
def test_chips_are_processed_alone_and_as_their_mirror_images(mask, flip):
    every = Postprocess(opening_pixels=3, hole_pixels=3, min_area_pixels=3)
    whole = every.clean(mask)
    np.testing.assert_array_equal(every.clean(mask[1:]), whole[1:])
    np.testing.assert_array_equal(every.clean(np.flip(mask, flip).copy()), np.flip(whole, flip))


def test_an_opening_keeps_clouds_at_the_edge_of_the_chip():
    mask = picture("##...", "##...", ".....", "...#.")
    assert (
        Postprocess(opening_pixels=3).clean(mask)[0].tolist() == picture("##...", "##...", ".....", ".....")[0].tolist()
    )


def test_small_clouds_and_enclosed_holes_go_by_their_area():
    mask = picture(
        "####..#",
        "#..#...",
        "####...",
        "#.#..##",
    )
    cleaned = Postprocess(hole_pixels=2, min_area_pixels=3).clean(mask)
    expected = picture("####...", "####...", "####...", "#.#....")  # the gap in the last row is open to the edge
    assert cleaned.tolist() == expected.tolist()
    assert Postprocess(hole_pixels=1).clean(mask).tolist() == mask.tolist()


def test_filters_are_scipys_on_each_chip():
    probabilities = np.random.default_rng(0).random((2, 8, 8)).astype(np.float32)
    for chip, smooth, middle in zip(
        probabilities,
        Postprocess(gaussian_sigma_pixels=1).masks(probabilities, 0.5),
        Postprocess(median_pixels=3).masks(probabilities, 0.5),
        strict=True,
    ):
        np.testing.assert_array_equal(smooth, ndimage.gaussian_filter(chip, 1, mode="nearest") > 0.5)
        np.testing.assert_array_equal(middle, ndimage.median_filter(chip, 3, mode="nearest") > 0.5)


def test_the_triplet_rule_takes_squares_with_enough_sure_pixels():
    probabilities = np.array(
        [[[0.9, 0.9, 0.9, 0.7, 0.85],
          [0.5, 0.3, 0.5, 0.7, 0.81],
          [0.6, 0.6, 0.9, 0.9, 0.70]]]
    ).astype(np.float32)  # fmt: skip
    rule = Triplet(square_pixels=2, sure=0.8, sure_pixels=2)
    masks = Postprocess(triplet=rule).masks(probabilities, 0.4)
    # squares: two sure pixels | one | two, cut by the edge; below: none, cut | two, cut | none, cut
    assert masks[0].astype(int).tolist() == [[1, 1, 0, 0, 1], [1, 0, 0, 0, 1], [0, 0, 1, 1, 0]]


@pytest.mark.parametrize("key", ["median_pixels", "opening_pixels", "closing_pixels"])
def test_windows_without_a_centre_are_refused(key):
    with pytest.raises(ValidationError, match="must be odd"):
        Postprocess.model_validate({key: 4})


@pytest.mark.parametrize("weights", [{"a": 0.5, "b": 0.4}, {"a": 1.5, "b": -0.5}, {}])
def test_weights_that_are_not_shares_are_refused(weights):
    with pytest.raises(ValidationError):
        InferenceSettings(weights=weights)
    assert InferenceSettings(weights=dict.fromkeys("abc", 1 / 3)).threshold == 0.5


@settings(max_examples=60, deadline=None, derandomize=True)
@given(p=hnp.arrays(np.float64, 9, elements=st.floats(0.05, 0.95)), temperature=st.floats(0.5, 5))
def test_a_temperature_divides_logits_and_is_undone_by_its_inverse(p, temperature):
    once = apply_temperature(p, temperature)
    np.testing.assert_allclose(np.log(once / (1 - once)), np.log(p / (1 - p)) / temperature, atol=2e-3)
    assert (np.diff(once[np.argsort(p)]) >= 0).all()
    if temperature >= 1:
        np.testing.assert_allclose(apply_temperature(once, 1 / temperature), p, atol=1e-3)
