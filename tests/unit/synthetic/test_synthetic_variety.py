"""What a synthetic set adds on request: an atmosphere, coarse pixels, bright ground, sets of ground, failed scenes."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import rasterio

from cloudcover.config.sections import DataParams, SyntheticParams
from cloudcover.data import tables
from cloudcover.data.label_errors import SCENE_FAILED
from cloudcover.synthetic import atmosphere, labels, scene, sites
from cloudcover.synthetic.generate import generate
from cloudcover.synthetic.sites import EXTREMES, Variety

DATA = DataParams(chip_size=64)
TOA, COARSE = Variety(toa=1), Variety(coarse=1)


def _clear(variety: Variety, number: int, locations: int = 14) -> np.ndarray:
    """Bands of a chip under a clear sky, 4 x 64 x 64 [DN]."""
    of = replace(sites.scene(0, number, locations, variety), cloudiness=-20.0)
    return scene.render(0, of, 0, 64).bands.astype(int)


def test_the_default_set_is_what_it_was():
    bands = np.concatenate([scene.render(3, sites.scene(3, n, 6), n, 32).bands.ravel() for n in range(4)])
    assert hashlib.sha256(bands.tobytes()).hexdigest()[:16] == "50f08cccc8161ed6"


def test_air_is_brightest_in_blue_and_under_a_low_sun():
    high, low = (atmosphere.air(np.random.default_rng(0), np.radians(angle)) for angle in (70, 25))
    for air in (high, low):
        assert air.path[0] > air.path[1] > air.path[2] > air.path[3] > 0
        assert air.through[0] < air.through[3] < 1
        assert air.gas[1] < air.gas[0]  # ozone
    assert low.path[0] > high.path[0]
    assert 0.06 < high.path[0] < 0.14


def test_dark_ground_is_brighter_above_the_atmosphere_and_most_so_in_blue():
    for number in range(4):
        above, below = (np.percentile(_clear(variety, number), 5, axis=(1, 2)) for variety in (TOA, Variety()))
        gain = above - below
        assert gain[0] > 400
        assert gain[0] > gain[1] > gain[2]


def test_clouds_of_a_top_of_atmosphere_scene_are_nearly_white():
    for number in range(8):
        of, plain = sites.scene(0, number, 14, TOA), sites.scene(0, number, 14)
        assert max(of.tint) / min(of.tint) < 1.1 < max(plain.tint) / min(plain.tint) + 0.05
        assert of.air is not None
        assert plain.air is None


def test_coarse_pixels_are_means_of_fine_ones_and_the_georeference_says_so(tmp_path):
    fine, coarse = sites.scene(0, 2, 14), sites.scene(0, 2, 14, COARSE)
    wide, chip = scene.render(0, fine, 1, 96), scene.render(0, coarse, 1, 32)
    means = wide.bands.reshape(4, 32, 3, 32, 3).mean(axis=(2, 4))
    assert np.abs(means - chip.bands).mean() < 40
    assert (scene.true_mask(0, coarse, 1, 32) == chip.mask).all()
    params = SyntheticParams(locations=1, scenes=1, chips=2, unlabelled=0, label_errors=0, coarse=1)
    generate(params, DataParams(chip_size=32), 0, tmp_path / "raw", tmp_path / "truth")
    corners = []
    for path in sorted((tmp_path / "raw" / "train_labels").iterdir()):
        with rasterio.open(path) as file:
            assert file.res == (30, 30)
            corners.append(file.transform.c)
    assert corners[1] - corners[0] == 30 * 32


def test_extreme_sites_are_as_frequent_as_asked_for_and_replace_others_only():
    plain = [sites.site(1, n).biome for n in range(200)]
    varied = [sites.site(1, n, 0.3).biome for n in range(200)]
    changed = [new for old, new in zip(plain, varied, strict=True) if new != old]
    assert len(changed) == pytest.approx(60, abs=4)
    assert set(changed) == set(EXTREMES)
    assert not set(plain) & set(EXTREMES)


def test_snow_is_bright_and_loses_light_towards_near_infrared():
    ratios = []
    for number in (n for n in range(60) if sites.site(0, n, 1.0).biome == "ice"):
        blue, _, _, infrared = _clear(Variety(extremes=1), number, 60)
        if (snow := blue > 5000).any():
            ratios.append(np.median(infrared[snow] / blue[snow]))
    assert len(ratios) > 10
    assert max(ratios) < 1.02
    assert min(ratios) < 0.85


def test_scenes_of_a_site_look_at_several_sets_of_ground():
    variety = Variety(grounds=2)
    of = [sites.scene(0, 1 + 7 * n, 7, variety) for n in range(3)]
    assert [o.ground for o in of] == [0, 1, 0]
    infrared = [scene._reflectance(0, o, 3, 32)[0][3].ravel() for o in of]
    assert sites.scene(0, 8, 7).ground == 0
    assert len({o.site for o in of}) == 1
    assert not np.allclose(infrared[0], infrared[1])


def test_all_labels_of_a_failed_scene_belong_to_another_image(tmp_path):
    params = SyntheticParams(locations=4, scenes=8, chips=48, unlabelled=0, label_errors=0.1, failed_scenes=0.25)
    generate(params, DATA, 3, tmp_path / "raw", tmp_path / "truth")
    truth = tables.TRUTH.read(tmp_path / "truth" / "masks.csv")
    of_scene = truth["chip_id"].str[:4]
    failed = set(of_scene[truth["error"] == SCENE_FAILED])
    assert len(failed) == 2
    inside = truth[of_scene.isin(failed)]
    assert set(inside["error"]) <= {"", SCENE_FAILED}
    assert (inside["error"] == SCENE_FAILED).mean() > 0.5
    for row in inside.itertuples():  # what is right by chance, such as overcast twice, is no error
        with rasterio.open(tmp_path / "raw" / "train_labels" / f"{row.chip_id}.tif") as file:
            label = file.read(1) == 1
        with rasterio.open(tmp_path / "truth" / row.path) as file:
            assert labels.is_wrong(label, file.read(1) == 1) == (row.error != "")
    others = truth[~of_scene.isin(failed)]
    assert (others["error"] != "").sum() == round(0.1 * len(others))
