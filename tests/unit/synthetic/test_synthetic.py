"""The synthetic source: layout, determinism, labels and their errors, radiometry."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio

from cloudcover.config.sections import DataParams, SyntheticParams
from cloudcover.data import tables
from cloudcover.data.label_errors import LABEL_ERRORS
from cloudcover.masks.overlap import iou
from cloudcover.synthetic import labels, land, scene, sites
from cloudcover.synthetic.clouds import MARGIN, shadow_offset
from cloudcover.synthetic.generate import generate
from cloudcover.synthetic.noise import fractal

DATA = DataParams(chip_size=64)
SET = SyntheticParams(locations=5, scenes=8, chips=60, unlabelled=0.1, label_errors=0.2)


def _make(
    folder: Path, params: SyntheticParams = SET, seed: int = 3, workers: int = 1, data: DataParams = DATA
) -> Path:
    generate(params, data, seed, folder / "raw", folder / "truth", workers, progress=False)
    return folder


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def _read(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read(1)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return _make(tmp_path_factory.mktemp("synthetic"))


@pytest.fixture(scope="module")
def truth(made):
    return tables.TRUTH.read(made / "truth" / "masks.csv").set_index("chip_id")


def test_files_follow_the_challenge_layout(made):
    raw = made / "raw"
    train = tables.METADATA.read(raw / "train_metadata.csv")
    test = tables.METADATA.read(raw / "test_metadata.csv")
    assert (len(train), len(test)) == (54, 6)
    assert {p.stem for p in (raw / "train_labels").iterdir()} == set(train["chip_id"])
    for split, table in (("train", train), ("test", test)):
        assert {p.name for p in (raw / f"{split}_features").iterdir()} == set(table["chip_id"])
        assert table["datetime"].str.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ").all()
    for chip in (raw / "train_features").iterdir():
        assert {p.name for p in chip.iterdir()} == {"B02.tif", "B03.tif", "B04.tif", "B08.tif"}


def test_truth_is_kept_apart_and_hashed(made, truth):
    assert not [p for p in (made / "raw").rglob("*") if "mask" in p.name or "truth" in p.name]
    assert len(truth) == 60
    for row in truth.itertuples():
        path = made / "truth" / row.path
        assert hashlib.sha256(path.read_bytes()).hexdigest() == row.sha256
        assert set(np.unique(_read(path))) <= {0, 1}


def test_bands_are_uint16_without_nodata_and_share_the_labels_grid(made):
    for label_path in sorted((made / "raw" / "train_labels").iterdir()):
        with rasterio.open(label_path) as label:
            assert label.dtypes == ("uint8",)
            assert label.nodata == 255
            assert set(np.unique(label.read(1))) <= {0, 1}
            for band in DATA.bands:
                with rasterio.open(made / "raw" / "train_features" / label_path.stem / f"{band}.tif") as file:
                    assert (file.crs, file.transform, file.shape) == (label.crs, label.transform, (64, 64))
                    assert (file.dtypes, file.nodata) == (("uint16",), 0)
                    assert file.crs.is_projected
                    assert file.res == (10, 10)
                    assert file.read(1).min() > 0


def test_same_seed_gives_the_same_bytes_with_any_number_of_workers(made, tmp_path):
    assert _hashes(_make(tmp_path, workers=2)) == _hashes(made)


def test_another_seed_gives_other_chips(made, tmp_path):
    other = _hashes(_make(tmp_path, SET.model_copy(update={"chips": 8}), seed=4))
    same = _hashes(made)
    assert not [p for p in other if p.endswith("B02.tif") and same.get(p) == other[p]]


def test_pixels_do_not_depend_on_what_else_is_made(made, tmp_path):
    few = SET.model_copy(update={"chips": 20, "unlabelled": 0.0, "label_errors": 0.5})
    less = _make(tmp_path, few)
    chips = sorted((less / "raw" / "train_features").iterdir())
    assert len(chips) == 20
    for chip in chips:
        split = "train" if (made / "raw" / "train_features" / chip.name).exists() else "test"
        for band in DATA.bands:
            assert (
                _read(chip / f"{band}.tif") == _read(made / "raw" / f"{split}_features" / chip.name / f"{band}.tif")
            ).all()


def test_share_of_wrong_labels_is_exact(truth):
    labelled = truth[truth["label_iou"].notna()]
    assert len(labelled) == 54
    assert (labelled["error"] != "").sum() == round(0.2 * 54)
    assert (truth.loc[truth["label_iou"].isna(), "error"] == "").all()


def test_wrong_labels_are_wrong_and_ordinary_ones_agree_with_the_truth(made, truth):
    for row in truth[truth["label_iou"].notna()].itertuples():
        label = _read(made / "raw" / "train_labels" / f"{row.Index}.tif") == 1
        mask = _read(made / "truth" / row.path) == 1
        assert row.label_iou == pytest.approx(iou(label, mask))
        assert labels.is_wrong(label, mask) == (row.error != "")
    ordinary = truth[truth["label_iou"].notna() & (truth["error"] == "")]
    assert ordinary["label_iou"].min() >= labels.WRONG_IOU
    cover = np.array([_read(made / "truth" / path).mean() for path in ordinary["path"]])
    assert 0.82 < ordinary.loc[(cover > 0.1) & (cover < 0.9), "label_iou"].mean() < 0.95


def test_every_kind_of_error_occurs_and_is_wrong():
    rng = np.random.default_rng(0)
    kinds: Counter[str] = Counter()
    for number in range(150):
        of = sites.scene(0, number % 30, 14)
        chip = scene.render(0, of, number // 30, 64)
        label = labels.human(chip, rng)
        wrong, kind = labels.spoil(label, chip, lambda of=of, n=number: scene.true_mask(0, of, n // 30 + 1, 64), rng)
        assert labels.is_wrong(wrong, chip.mask)
        kinds[kind] += 1
    assert set(kinds) == set(LABEL_ERRORS)


@pytest.mark.parametrize("cover", [False, True])
def test_an_error_that_would_change_nothing_is_drawn_again_as_another(cover):
    mask = np.full((64, 64), cover)
    chip = scene.Chip(np.full((4, 64, 64), 900, np.uint16), mask.astype(np.float32))
    for seed in range(20):
        wrong, kind = labels.spoil(mask, chip, lambda: mask, np.random.default_rng(seed))
        assert labels.is_wrong(wrong, mask)
        assert kind not in {"swapped", "shifted", "empty_over_cloud" if not cover else "false_cloud"}


def test_coverage_of_the_truth_is_distributed_as_in_the_real_set():
    cover = np.array([sites.coverage(0, sites.scene(0, s, 60), p) for s in range(60) for p in range(20)])
    assert np.mean(cover == 0) == pytest.approx(sites.ALL_CLEAR_SHARE, abs=0.04)
    assert np.mean(cover == 1) == pytest.approx(sites.ALL_CLOUD_SHARE, abs=0.06)
    assert cover.mean() == pytest.approx(0.64, abs=0.05)


def test_chips_of_a_scene_share_their_weather():
    cover = np.array([[sites.coverage(0, sites.scene(0, s, 60), p) for p in range(20)] for s in range(60)])
    assert cover.mean(axis=1).std() > 2 * cover.std() / np.sqrt(20), (
        "chips of a scene are no more alike than chips of any scene"
    )


def test_mask_covers_the_share_that_the_weather_asks_for():
    for number in range(12):
        of = sites.scene(1, number, 12)
        mask = scene.true_mask(1, of, 2, 128)
        assert mask.mean() == pytest.approx(sites.coverage(1, of, 2), abs=0.01)


def test_thick_cloud_is_bright_and_nearly_white_and_thin_cloud_raises_blue_most():
    thick, thin, clear = [], [], []
    for number in range(30):
        chip = scene.render(2, sites.scene(2, number, 30), 1, 64)
        bands = chip.bands.reshape(4, -1).astype(float)
        opacity = chip.opacity.ravel()
        thick.append(bands[:, opacity > 0.8])
        thin.append(bands[:, (opacity > 0.1) & (opacity < 0.3)])
        clear.append(bands[:, opacity < 0.02])
    white = np.concatenate(thick, axis=1).mean(axis=1)
    rise = np.concatenate(thin, axis=1).mean(axis=1) - np.concatenate(clear, axis=1).mean(axis=1)
    assert white.min() > 5000
    assert white.max() / white.min() < 1.3
    assert rise[0] > rise[1] > rise[2] > rise[3]


def test_shadow_falls_away_from_the_sun():
    for number in range(20):
        of = sites.scene(0, number, 20)
        rows, columns = shadow_offset(of)
        # North is up: the sun's direction in rows and columns is (-cos azimuth, sin azimuth).
        assert rows * -np.cos(of.sun_azimuth) + columns * np.sin(of.sun_azimuth) < 0
        assert max(abs(rows), abs(columns)) <= MARGIN


def test_sites_have_several_kinds_of_land_and_scenes_several_kinds_of_cloud():
    assert len({sites.site(0, n).biome for n in range(14)}) >= 6
    assert {sites.scene(0, n, 14).kind for n in range(30)} == set(sites.KINDS)


def test_the_ground_of_a_site_stays_where_it_is():
    first, second = sites.scene(0, 1, 7), sites.scene(0, 8, 7)
    assert first.site == second.site
    assert first.time != second.time
    grounds = [land.reflectance(np.random.default_rng(5), of, 64) for of in (first, second)]
    stranger = land.reflectance(np.random.default_rng(6), first, 64)
    assert np.corrcoef(grounds[0].ravel(), grounds[1].ravel())[0, 1] > 0.5
    near_infrared = [np.corrcoef(grounds[0][3].ravel(), other[3].ravel())[0, 1] for other in (grounds[1], stranger)]
    assert near_infrared[0] > 0.5 > near_infrared[1]


@pytest.mark.parametrize(("scenes", "chips"), [(30, 330), (5, 5), (7, 3), (4, 41)])
def test_chips_are_spread_over_scenes(scenes, chips):
    counts = sites.chip_counts(0, scenes, chips)
    assert sum(counts) == chips
    assert min(counts) >= (1 if chips >= scenes else 0)


def test_order_and_choice_of_bands_are_the_parameters(tmp_path):
    data = DataParams(chip_size=32, bands=["B08", "B02"])
    _make(tmp_path, SyntheticParams(locations=1, scenes=1, chips=1, unlabelled=0, label_errors=0), data=data)
    assert {p.name for p in next((tmp_path / "raw" / "train_features").iterdir()).iterdir()} == {"B02.tif", "B08.tif"}


def test_a_band_that_cannot_be_made_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"generates the bands .*B08.*, not \['B11'\]; change data.bands"):
        _make(tmp_path, data=DataParams(bands=["B02", "B11"]))
    assert not list(tmp_path.iterdir())


def test_fractal_fields_are_standardised_and_smoother_with_hurst():
    rough, smooth = (fractal(np.random.default_rng(0), 128, hurst, 60.0) for hurst in (0.1, 1.0))
    for field in (rough, smooth):
        assert field.dtype == np.float32
        assert field.mean() == pytest.approx(0, abs=1e-3)
        assert field.std() == pytest.approx(1, abs=1e-3)
    assert np.abs(np.diff(rough)).mean() > 2 * np.abs(np.diff(smooth)).mean()


def test_metadata_of_a_set_without_unlabelled_chips_is_an_empty_table(tmp_path):
    _make(tmp_path, SyntheticParams(locations=1, scenes=1, chips=2, unlabelled=0, label_errors=0))
    assert pd.read_csv(tmp_path / "raw" / "test_metadata.csv").empty
