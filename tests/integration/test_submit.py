"""A submission, run as the challenge's code runtime runs it: unpacked into an empty folder, without the package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner

from cloudcover.cli import main
from cloudcover.predict.openvino.card import CARD as EXPORT_CARD
from helpers.bundles import cut_out, random_bundle, read_chips
from helpers.layouts import make_layout
from helpers.paths import python_path


@pytest.fixture(scope="module")
def chips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two chips of the challenge's size, one with rows without data."""
    root = tmp_path_factory.mktemp("chips")
    make_layout(root, chips=2, size=512, scenes=2, unlabelled=0)
    cut_out(root / "train_features/c000", slice(40))
    return root / "train_features"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, chips: Path) -> Path:
    return random_bundle(tmp_path_factory.mktemp("models"), read_chips(chips))


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as raster:
        assert (raster.count, raster.dtypes[0], raster.nodata) == (1, "uint8", None)
        return raster.read(1)


def test_a_submission_masks_as_predict_does_without_the_package(chips: Path, bundle: Path, tmp_path: Path) -> None:
    archive, here = tmp_path / "submission.zip", tmp_path / "codeexecution"
    done = CliRunner().invoke(main, ["submit", str(bundle), "--out", str(archive)])
    assert done.exit_code == 0, done.output
    ZipFile(archive).extractall(here)
    (here / "data").mkdir()
    (here / "data/test_features").symlink_to(chips)
    # Whoever imports an installed package instead of the one that was submitted ends here.
    (tmp_path / "installed/cloudcover").mkdir(parents=True)
    (tmp_path / "installed/cloudcover/__init__.py").write_text("raise SystemExit('this is not the submitted package')")
    environment = {"PATH": "/nowhere", "HOME": str(tmp_path), "PYTHONPATH": python_path(tmp_path / "installed")}
    run = subprocess.run(
        [sys.executable, "main.py"], cwd=here, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    expected = tmp_path / "expected"
    done = CliRunner().invoke(main, ["predict", str(chips), "--model", str(bundle), "--out", str(expected)])
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in (here / "predictions").glob("*.tif")) == ["c000.tif", "c001.tif"]
    for path in (here / "predictions").glob("*.tif"):
        mask = rasterio.open(expected / path.name).read(1)
        assert {0, 1} <= set(np.unique(mask))
        np.testing.assert_array_equal(read(path), mask == 1)
    assert (read(here / "predictions/c000.tif")[:40] == 0).all()


def test_a_chip_that_cannot_be_read_gets_a_clear_mask(
    chips: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cloudcover.predict.submission_main import main as run

    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/test_features/broken").mkdir(parents=True)
    (tmp_path / "data/test_features/broken/B02.tif").write_bytes(b"no image")
    (tmp_path / "data/test_features/c000").symlink_to(chips / "c000")
    (tmp_path / "model").symlink_to(bundle)
    run()
    assert read(tmp_path / "predictions/broken.tif").shape == (512, 512)
    assert not read(tmp_path / "predictions/broken.tif").any()
    assert read(tmp_path / "predictions/c000.tif").any()


def test_the_same_model_gives_the_same_archive_and_no_file_is_overwritten(bundle: Path, tmp_path: Path) -> None:
    for name in ("a.zip", "b.zip"):
        assert CliRunner().invoke(main, ["submit", str(bundle), "--out", str(tmp_path / name)]).exit_code == 0
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    (tmp_path / "mine.zip").write_text("mine")
    done = CliRunner().invoke(main, ["submit", str(bundle), "--out", str(tmp_path / "mine.zip")])
    assert done.exit_code == 1
    assert "mine.zip" in done.output
    assert (tmp_path / "mine.zip").read_text() == "mine"
    (tmp_path / "link.zip").symlink_to("away/later.zip")
    assert CliRunner().invoke(main, ["submit", str(bundle), "--out", str(tmp_path / "link.zip")]).exit_code == 1
    assert (tmp_path / "link.zip").is_symlink()


def test_an_export_is_refused(tmp_path: Path) -> None:
    (tmp_path / "fast").mkdir()
    (tmp_path / "fast" / EXPORT_CARD).write_text("{}")
    done = CliRunner().invoke(main, ["submit", str(tmp_path / "fast"), "--out", str(tmp_path / "submission.zip")])
    assert done.exit_code == 1
    assert "OpenVINO" in done.output
    assert not (tmp_path / "submission.zip").exists()
