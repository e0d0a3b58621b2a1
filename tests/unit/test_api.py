"""The public API: what `import cloudcover` offers, what it loads, and what it needs to be installed."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
import xarray

import cloudcover
from cloudcover.api import PUBLIC
from cloudcover.models.folder import ModelFolderError
from helpers.bundles import read_chips
from helpers.layouts import BANDS, pixels_of
from helpers.scenes import scene, write_raster


def test_the_package_loads_nothing_until_a_name_is_used() -> None:
    program = (
        "import sys, cloudcover; names = dir(cloudcover)\n"
        "print(sorted({'torch', 'numpy', 'rasterio', 'pandas'} & set(sys.modules)), 'load_model' in names)\n"
        "cloudcover.__version__, cloudcover.ChipStore; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[] True", "False"]


def test_type_checkers_see_the_names_that_exist() -> None:
    tree = ast.parse(Path(cloudcover.__file__).read_text(encoding="utf-8"))
    seen = next(n for n in ast.walk(tree) if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "__all__")
    assert set(ast.literal_eval(seen.value)) == {*PUBLIC, "__version__"}
    assert all(callable(getattr(cloudcover, name)) for name in PUBLIC)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        cloudcover.nothing  # noqa: B018


def test_arrays_and_files_get_the_same_masks(bundle: Path, three_chips: Path, tmp_path: Path) -> None:
    written = cloudcover.predict(three_chips / "train_features", tmp_path / "masks", model=bundle)
    expected = np.array([rasterio.open(path).read(1) for path in sorted(written)])
    model = cloudcover.load_model(bundle)
    assert model.bands == BANDS
    dn = read_chips(three_chips / "train_features")
    masks = model.predict(dn)
    assert (masks.dtype, masks.shape) == (np.uint8, (3, 50, 50))
    assert {0, 1, 255} == set(np.unique(masks))
    np.testing.assert_array_equal(masks, expected)
    np.testing.assert_array_equal(model.predict(dn[1]), expected[1])
    figures = cloudcover.score(tmp_path / "masks", three_chips / "train_labels")
    assert 0 < figures["jaccard"] < 1


def test_reflectance_is_recognised_and_nan_has_no_data(bundle: Path, three_chips: Path) -> None:
    model, dn = cloudcover.load_model(bundle), read_chips(three_chips / "train_features")
    reflectance = np.where(dn == 0, np.nan, dn / 10_000)
    np.testing.assert_array_equal(model.predict(reflectance.astype(np.float32)), model.predict(dn))
    probabilities = model.probabilities(reflectance)
    assert probabilities.shape == (3, 50, 50)
    np.testing.assert_array_equal(np.isnan(probabilities), (dn == 0).any(axis=1))
    last = SimpleNamespace(dims=("y", "x", "band"), data=dn[1].transpose(1, 2, 0), shape=(50, 50, 4), dtype=dn.dtype)
    np.testing.assert_array_equal(model.predict(last), model.predict(dn[1]))
    # Water may have a reflectance of 0 or less; it is not "no data".
    dark = model.predict(np.full((4, 32, 32), -0.01))
    assert 255 not in dark


def test_images_of_any_size_and_dn_as_floating_point_numbers(bundle: Path, three_chips: Path) -> None:
    model, dn = cloudcover.load_model(bundle), read_chips(three_chips / "train_features")[1]
    for height, width in ((1, 1), (3, 5), (1, 50)):
        assert model.predict(dn[:, :height, :width]).shape == (height, width)
    np.testing.assert_array_equal(model.predict(dn.astype(np.float32), scale=0.0001), model.predict(dn))
    np.testing.assert_array_equal(model.probabilities(dn * 1.0, scale=0.0001), model.probabilities(dn))


def test_files_are_predicted_with_the_options_of_the_command(bundle: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    dn = scene(64, 64)
    write_raster(tmp_path / "x.tif", dn[[3, 0, 1, 2]].astype(np.float32))
    (path,) = cloudcover.predict("~/x.tif", "~/out", model=bundle, bands=[2, 3, 4, 1], scale=0.0001)
    assert path == tmp_path / "out/x.tif"
    np.testing.assert_array_equal(pixels_of(path), cloudcover.load_model(bundle).predict(dn))
    shutil.copytree(tmp_path / "out", tmp_path / "labels")
    assert cloudcover.score("~/out", str(tmp_path / "labels"))["jaccard"] == 1


def test_an_array_of_other_bands_is_refused_with_the_names_that_are_needed(bundle: Path) -> None:
    model = cloudcover.load_model(bundle)
    with pytest.raises(ValueError, match=r"3 bands.*'B02', 'B03', 'B04', 'B08'"):
        model.predict(np.ones((3, 64, 64), np.uint16))
    with pytest.raises(ValueError, match=r"\(64, 64\)"):
        model.predict(np.ones((64, 64), np.uint16))
    with pytest.raises(ValueError, match=r"64 bands.*seem to be last: `array\.transpose\(2, 0, 1\)` moves them"):
        model.predict(np.ones((64, 50, 4), np.uint16))
    for axis in ("band", "variable"):  # `to_dataarray` of a dataset adds the latter
        with pytest.raises(ValueError, match=f"the axes {axis}, time, y, x, expected images x bands x height x width"):
            model.predict(xarray.DataArray(np.ones((4, 4, 32, 32), np.uint16), dims=(axis, "time", "y", "x")))
    with pytest.raises(ValueError, match="contains no image"):
        model.predict(np.ones((0, 4, 32, 32), np.uint16))
    for offset in (0.1, -1000):
        with pytest.raises(ValueError, match=f"the offset is {offset}, expected the DN that were added"):
            model.predict(np.ones((4, 32, 32), np.uint16), offset=offset)
    with pytest.raises(ValueError, match="complex"):
        model.predict(np.ones((4, 64, 64), np.complex64))


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match=str(tmp_path)):
        cloudcover.load_model(tmp_path)
