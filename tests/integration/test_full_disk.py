"""A disk that is really full: an error names the file, the older file stays, and nothing half-written is visible."""

import shutil
import subprocess
from importlib.util import find_spec

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner

from cloudcover.cli import main
from cloudcover.config.sections import DataParams, ModelParams, SyntheticParams
from cloudcover.data import tables
from cloudcover.data.geotiff import encode_geotiff, write_geotiff
from cloudcover.data.pack import pack
from cloudcover.models.build import build_model
from cloudcover.models.folder import save_model
from cloudcover.predict.openvino.card import load_export, load_library
from cloudcover.predict.predictor import Predictor
from cloudcover.predict.unlabelled import predict_unlabelled
from cloudcover.runtime.files import atomic, write_text
from cloudcover.sources.fetch import fetch
from harness.forked import programs
from helpers.disks import PAGE
from helpers.layouts import BANDS, make_layout, write_tif
from helpers.networks import ENCODER, card
from helpers.training import make_store


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model folder; only to be read."""
    folder = tmp_path_factory.mktemp("models") / "model"
    params = ModelParams.model_validate({"encoder": ENCODER, "decoder_channels": [16, 16, 8, 8, 8]})
    save_model(folder, build_model(params, BANDS), card())
    return folder


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    """An export of the model; only to be read."""
    out = tmp_path_factory.mktemp("exports") / "export"
    load_library("openvino")  # which sends nothing home then
    assert run("export", model, "--out", out, "--precision", "fp32").exit_code == 0
    return out


def run(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def bring(source, raw, **changes):
    data = DataParams.model_validate({"source": "local", "path": str(source), "chip_size": 64} | changes)
    fetch(data, SyntheticParams.model_validate({}), 0, raw, raw.parent / "truth")


@pytest.mark.parametrize("profile", [{}, {"compress": "deflate", "nodata": 255, "crs": "EPSG:32633"}])
@pytest.mark.parametrize("shape", [(40, 50), (3, 40, 50)])
def test_a_geotiff_has_the_bytes_that_gdal_writes_to_a_file(tmp_path, shape, profile):
    pixels = np.random.default_rng(0).integers(0, 200, shape).astype(np.uint8)
    place = profile | {"transform": rasterio.Affine(10, 0, 5e5, 0, -10, 5e6)}
    write_geotiff(tmp_path / "new" / "a.tif", pixels, place)
    bands = pixels.reshape(-1, 40, 50)
    size = {"count": len(bands), "height": 40, "width": 50, "dtype": "uint8"}
    with rasterio.open(tmp_path / "b.tif", "w", driver="GTiff", **place, **size) as image:
        image.write(bands)
    assert (tmp_path / "new" / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
    assert encode_geotiff(pixels, place) == (tmp_path / "b.tif").read_bytes()


def test_tags_and_a_mask_become_part_of_the_one_file(tmp_path):
    def complete(image) -> None:
        image.update_tags(origin="here")
        image.write_mask(np.arange(16).reshape(4, 4) > 7)

    write_geotiff(tmp_path / "a.tif", np.ones((4, 4), np.uint16), {}, complete)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]
    with rasterio.open(tmp_path / "a.tif") as image:
        assert image.tags()["origin"] == "here"
        assert (image.read_masks(1) > 0).tolist() == (np.arange(16).reshape(4, 4) > 7).tolist()


def test_predicting_again_keeps_the_good_masks(disk, model, tmp_path):
    make_layout(tmp_path / "set", chips=6, unlabelled=0)
    words = ("predict", tmp_path / "set", "--model", model, "--out", disk.path / "masks", "--device", "cpu")
    assert run(*words).exit_code == 0
    before = disk.files()
    assert len(before) == 7, "six masks and the record of them"
    disk.leave(0)
    result = run(*words)
    assert result.exit_code == 1
    assert "No space left on device" in result.output
    assert str(disk.path / "masks" / "c000.tif") in result.output
    assert disk.files() == before


def test_masks_without_room_are_not_reported_as_written(disk, model, tmp_path):
    make_layout(tmp_path / "set", chips=6, unlabelled=0)
    disk.leave(4)  # three masks and the record of them
    result = run("predict", tmp_path / "set", "--model", model, "--out", disk.path / "masks", "--device", "cpu")
    assert result.exit_code == 1
    assert str(disk.path / "masks" / "c003.tif") in result.output
    assert sorted(disk.files()) == ["masks/.cloudcover", *(f"masks/c00{number}.tif" for number in range(3))]
    disk.assert_whole()


def test_masks_of_unlabelled_chips_are_kept(disk, model, tmp_path):
    store = make_store(tmp_path, chips=6, unlabelled=3)
    predictor = Predictor([model], device="cpu")
    predict_unlabelled(store, predictor, disk.path / "masks")
    before = disk.files()
    disk.leave(0)
    with pytest.raises(OSError, match=r"No space left.*masks/c003\.tif"):
        predict_unlabelled(store, predictor, disk.path / "masks")
    assert disk.files() == before


def test_tiles_are_whole_or_absent(disk, tmp_path):
    for band in BANDS:
        write_tif(tmp_path / "one" / f"{band}.tif", np.ones((128, 128), np.uint16))
    make_layout(tmp_path / "set", chips=4, size=128, unlabelled=0)
    disk.leave(20)
    with pytest.raises(OSError, match=r"No space left.*_features/c000_\d+_\d+/B\d+\.tif"):
        bring(tmp_path / "set", disk.path / "raw", tile=True)
    assert disk.files()
    disk.assert_whole()


@pytest.mark.parametrize("changes", [{"tile": True}, {"link": "copy"}])
def test_bringing_a_set_again_keeps_the_older_files(disk, tmp_path, changes):
    make_layout(tmp_path / "set", chips=2, size=128 if "tile" in changes else 64, unlabelled=0)
    bring(tmp_path / "set", disk.path / "raw", **changes)
    before = disk.files()
    disk.leave(0)
    with pytest.raises(OSError, match=rf"No space left.*: '{disk.path}/raw/train_"):
        bring(tmp_path / "set", disk.path / "raw", **changes)
    assert disk.files() == before


@pytest.mark.parametrize("workers", [1, 2])
def test_a_synthetic_set_is_whole_or_an_error(disk, workers):
    words = ("synth", disk.path / "set", "--chips", 4, "--scenes", 2, "--locations", 2, "--chip-size", 64)
    disk.leave(13)
    result = run(*words, "--workers", workers)
    assert result.exit_code == 1
    assert "4 chips of 64 x 64 pixels need at least 1 MB" in result.output
    assert not disk.files()
    disk.leave(45)  # enough for the pixels, but not for headers and tables
    result = run(*words, "--workers", workers)
    assert result.exit_code == 1
    assert "No space left on device" in result.output
    assert f"'{disk.path}/set/" in result.output
    assert disk.files()
    disk.assert_whole()
    (disk.path / "filler").unlink()
    assert run(*words).exit_code == 0
    before = disk.files()
    disk.leave(0)
    assert run(*words, "--workers", workers).exit_code == 1
    assert disk.files() == before


def test_packing_names_the_shard(disk, tmp_path):
    make_store(tmp_path, chips=6)
    disk.leave(8)
    with pytest.raises(OSError, match=r"No space left.*store/chips-00000\.npy"):
        pack(tmp_path / "raw", disk.path / "store", tmp_path / "q.csv", DataParams.model_validate({"chip_size": 64}))
    disk.assert_whole()


def test_a_model_without_room_for_its_weights_is_named_and_the_old_model_is_kept(disk):
    params = ModelParams.model_validate({"encoder": ENCODER, "decoder_channels": [16, 16, 8, 8, 8]})
    save_model(disk.path / "model", build_model(params, BANDS), card())
    before = disk.files()
    disk.leave(3)
    with pytest.raises(OSError, match=r"No space left.*model/model\.safetensors"):
        save_model(disk.path / "model", build_model(params, BANDS), card())
    assert disk.files() == before


OOF = """
predict_oof(store, folds, {0: [model]}, ["none"], params.compute, out)
"""
PSEUDO = """
predict_oof(store, folds, {0: [model]}, ["none"], params.compute, store_path.parent / "oof")
manifest = folds[["chip_id"]].assign(verdict="bad", label="none", source="", reason="", score=1.0, time="")
predictions = OutOfFold([store_path.parent / "oof"])
pseudo_label(store, manifest, folds, predictions, "none", params.pseudo_labels, 0, out)
"""
MAPPED = """
import sys
from pathlib import Path
from cloudcover.config.params import Params, validate
from cloudcover.masks.out_of_fold import OutOfFold
from cloudcover.predict.oof import predict_oof
from cloudcover.pseudo_labels.label import pseudo_label
from cloudcover.data.store import ChipStore

store_path, model, out = map(Path, sys.argv[1:])
store = ChipStore(store_path)
params = validate({"compute": {"device": "cpu"}})
folds = store.index[["scene"]].reset_index().assign(fold=0)
"""


@pytest.mark.parametrize(("program", "name"), [(OOF, "none.npy"), (PSEUDO, "masks.npy")], ids=["oof", "pseudo"])
def test_a_memory_map_without_room_is_an_error_and_not_a_killed_process(disk, tmp_path, program, name):
    make_store(tmp_path, chips=6)
    params = ModelParams.model_validate({"encoder": ENCODER, "decoder_channels": [16, 16, 8, 8, 8]})
    save_model(tmp_path / "model", build_model(params, BANDS), card(run="round1", fold=0))
    disk.leave(3)
    (tmp_path / "program.py").write_text(MAPPED + program)
    words = [programs() / "python", "program.py", tmp_path / "store", tmp_path / "model", disk.path / "out"]
    result = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 1, result.stderr
    assert (
        f"No space left on device: the file was not written; free some space and run again: '{disk.path}/out/{name}'"
        in result.stderr
    )
    assert disk.files() == {}


WRITERS = {
    "a.txt": lambda path: write_text(path, "x" * PAGE),
    "a.csv": lambda path: tables.QUARANTINE.write(tables.QUARANTINE.empty(), path),
    "a.parquet": lambda path: tables.QUARANTINE.write(tables.QUARANTINE.empty(), path),
}


@pytest.mark.skipif(find_spec("openvino") is None, reason="needs the extra cloudcover[openvino]")
@pytest.mark.parametrize("pages", [2, 150, 300, 420])
def test_an_export_without_room_is_an_error_and_keeps_the_older_one(disk, model, exported, pages):
    out = shutil.copytree(exported, disk.path / "export")
    before = disk.files()
    size = sum(map(len, before.values()))
    assert 2 * size > 420 * PAGE
    disk.leave(pages)
    result = run("export", model, "--out", out, "--precision", "fp32")
    if result.exit_code == 0:
        assert pages * PAGE > size
    else:
        assert "export" in result.output
        assert disk.files() == before
    load_export(out)


@pytest.mark.parametrize("name", list(WRITERS))
def test_every_atomic_write_names_its_file_and_keeps_the_older_one(disk, name):
    path = disk.path / name
    path.write_bytes(b"old")
    disk.leave(0)
    with pytest.raises(OSError, match=rf"No space left.*: '{path}'"):
        WRITERS[name](path)
    assert disk.files() == {name: b"old"}


def test_an_error_that_names_another_file_keeps_its_name(disk, tmp_path):
    disk.leave(0)

    def write() -> None:
        with atomic(tmp_path / "outer.txt"):
            write_text(disk.path / "inner.txt", "x")

    with pytest.raises(OSError, match=r"inner\.txt'$"):
        write()
