"""Prediction: ensembles, bundles, masks on disk, and chips that a model was not made for."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import rasterio
import torch
from click.testing import CliRunner

from cloudcover.augment.tta import POLICIES
from cloudcover.cli import main
from cloudcover.config.params import validate
from cloudcover.config.sections import InputParams, ModelParams
from cloudcover.data import tables
from cloudcover.data.chips import read_mask
from cloudcover.data.folds import TEST
from cloudcover.data.ownership import owned
from cloudcover.data.store import ChipStore
from cloudcover.masks.decision import InferenceSettings, apply_temperature, mask_of
from cloudcover.masks.postprocess import Postprocess
from cloudcover.models import folder as model_folder
from cloudcover.models.build import build_model
from cloudcover.models.folder import ModelFolderError, save_model
from cloudcover.predict import chips as predict_chips
from cloudcover.predict.bundle import load_bundle, write_bundle
from cloudcover.predict.files import chip_percentiles
from cloudcover.predict.images import UnusableImagesError, predict_images
from cloudcover.predict.oof import predict_oof
from cloudcover.predict.outputs import Outputs
from cloudcover.predict.predictor import EnsembleError, NotFiniteError, Predictor
from cloudcover.rasters.find import Found, find_images
from cloudcover.rasters.layers import Request
from cloudcover.runtime.device import DeviceMemoryError
from cloudcover.runtime.files import read_json, write_json
from helpers.layouts import BANDS, make_layout, write_tif
from helpers.networks import ENCODER, Brightness, card
from helpers.paths import SHARED
from helpers.training import needs_gpu


@pytest.fixture
def bright(tmp_path, monkeypatch):
    """Makes model folders of `Brightness` networks: `bright(level, threshold=…)`."""
    monkeypatch.setattr(model_folder, "build_model", lambda *_, **__: Brightness())

    def make(level: float = 1.0, name: str = "final/unet/fold0", **changes):
        save_model(tmp_path / name, Brightness(level), card(**changes))
        return tmp_path / name

    return make


def chips_of(*levels: int, size: int = 64) -> np.ndarray:
    return np.stack([np.full((4, size, size), level, np.uint16) for level in levels])


@pytest.mark.parametrize("policy", ["none", "vflip", "hflip", "flips", "d4"])
def test_an_ensemble_averages_probabilities_whatever_the_batch(bright, policy):
    folders = [bright(0.5, "a"), bright(1.5, "b")]
    rng = np.random.default_rng(0)
    dn = rng.integers(500, 9000, (5, 4, 64, 64)).astype(np.uint16)
    percentiles = chip_percentiles(dn, 0)
    both = Predictor(folders, policy, batch=2).probabilities(dn, percentiles)
    single = [Predictor([f], policy, batch=5).probabilities(dn, percentiles) for f in folders]
    np.testing.assert_allclose(both, np.mean(single, axis=0), atol=1e-5)
    scaled = (dn[:, 0] / 10_000 - 0.275) / 0.24
    np.testing.assert_allclose(single[0], 1 / (1 + np.exp(-10 * (scaled - 0.5))), atol=1e-4)


def test_threads_do_not_disturb_each_other(bright):
    predictor = Predictor([bright()], "flips", batch=2)
    dn = np.random.default_rng(0).integers(500, 9000, (32, 4, 128, 128)).astype(np.uint16)
    percentiles = chip_percentiles(dn, 0)
    alone = predictor.probabilities(dn, percentiles)
    with ThreadPoolExecutor(4) as threads:
        parts = list(
            threads.map(lambda i: predictor.probabilities(dn[i : i + 1], percentiles[i : i + 1]), range(len(dn)))
        )
    np.testing.assert_array_equal(np.concatenate(parts), alone)


def test_models_that_disagree_about_their_input_cannot_predict_together(bright):
    other = InputParams.model_validate({"mean": [0, 0], "std": [1, 1]})
    folders = [bright(name="a"), bright(name="b", bands=["B02", "B03"], input=other)]
    with pytest.raises(EnsembleError, match=r"b has bands \['B02', 'B03'\], but .*a has"):
        Predictor(folders)
    with pytest.raises(EnsembleError, match="at least one"):
        Predictor([])


def test_chips_of_other_bands_are_refused(bright):
    with pytest.raises(EnsembleError, match="the chips have 3 bands, the model was made for"):
        Predictor([bright()]).probabilities(np.ones((1, 3, 64, 64), np.uint16), np.ones((1, 3, 2), np.float32))


def test_a_bundle_predicts_with_its_own_policy_and_threshold(bright, tmp_path):
    folders = [bright(0.5, "final/unet/fold0"), bright(1.5, "final/unet/fold1")]
    settings = InferenceSettings(weights={"unet-fold0": 0.5, "unet-fold1": 0.5}, threshold=0.3)
    write_bundle(folders, "flips", settings, tmp_path / "bundle", {"jaccard": 0.9, "jaccard_low": 0.8})
    predictor = load_bundle(tmp_path / "bundle")
    assert (predictor.policy, predictor.threshold, len(predictor.engines)) == ("flips", 0.3, 2)
    text = (tmp_path / "bundle" / "README.md").read_text()
    assert "| jaccard | 0.9000 |" in text
    assert "B02, B03, B04, B08" in text
    (tmp_path / "bundle" / "unet-fold1" / "model.safetensors").write_bytes(b"x")
    with pytest.raises(ModelFolderError, match=r"unet-fold1/model\.safetensors has SHA-256"):
        load_bundle(tmp_path / "bundle")
    with pytest.raises(ModelFolderError, match=r"neither bundle\.json nor model\.json"):
        load_bundle(tmp_path)


def test_masks_are_written_on_the_grid_of_the_chips_with_255_where_there_is_no_data(bright, tmp_path):
    pixels = np.full((50, 70), 1000, np.uint16)
    pixels[:, 35:] = 9000
    pixels[0] = 0
    for band in BANDS:
        write_tif(tmp_path / "scenes" / "odd" / f"{band}.tif", pixels, x=399_960, crs="EPSG:32736")
    chips = find_images([tmp_path / "scenes"], BANDS)
    (path,) = predict_images(Predictor([bright()]), chips, Outputs(tmp_path / "masks"))
    with rasterio.open(path) as mask:
        values = mask.read(1)
        assert (mask.crs, mask.transform.c, mask.nodata, mask.dtypes[0]) == ("EPSG:32736", 399_960, 255, "uint8")
    assert (values[0] == 255).all()
    assert (values[1:, :35] == 0).all()
    assert (values[1:, 35:] == 1).all()


def test_chips_of_the_same_name_and_folders_without_chips_are_refused(bright, tmp_path):
    for part in ("a", "b"):
        for band in BANDS:
            write_tif(tmp_path / part / "chip" / f"{band}.tif", np.ones((64, 64), np.uint16))
    chips = find_images([tmp_path / "a", tmp_path / "b"], BANDS)
    with pytest.raises(ValueError, match=r"several images are called chip:"):
        predict_images(Predictor([bright()]), chips, Outputs(tmp_path / "masks"))
    (tmp_path / "masks").mkdir()
    with pytest.raises(FileNotFoundError, match="contains no image"):
        find_images([tmp_path / "masks"], BANDS)


def test_a_mask_is_one_above_the_threshold_only():
    probabilities = np.array([[[0.2, 0.5, 0.51, 0.9]]], np.float32)
    chips = np.array([[[[1, 1, 1, 0]]]], np.uint16)
    assert mask_of(probabilities, chips, 0.5, 0).tolist() == [[[0, 0, 1, 255]]]


def test_a_real_network_predicts_chips_of_any_size(tmp_path):
    model = ModelParams.model_validate({"encoder": ENCODER, "decoder_channels": [16, 16, 8, 8, 8]})
    save_model(tmp_path / "m", build_model(model, BANDS), card())
    make_layout(tmp_path / "set", chips=2, size=80, unlabelled=0)
    written = predict_images(
        Predictor([tmp_path / "m"]), find_images([tmp_path / "set"], BANDS), Outputs(tmp_path / "out")
    )
    with rasterio.open(written[0]) as mask:
        assert mask.shape == (80, 80)
        assert set(np.unique(mask.read(1))) <= {0, 1}


def test_chips_of_many_sizes_are_predicted_in_order_and_all_written(bright, tmp_path):
    sizes = [64, 64, 96, 64, 40]
    for number, size in enumerate(sizes):
        for band in BANDS:
            write_tif(tmp_path / "set" / f"c{number}" / f"{band}.tif", np.full((size, size), 9000, np.uint16))
    written = predict_images(
        Predictor([bright()], batch=2), find_images([tmp_path / "set"], BANDS), Outputs(tmp_path / "out")
    )
    assert [path.name for path in written] == [f"c{number}.tif" for number in range(5)]
    for path, size in zip(written, sizes, strict=True):
        with rasterio.open(path) as mask:
            assert mask.shape == (size, size)


def bright_set(root, names, size=64):
    for name in names:
        for band in BANDS:
            write_tif(root / name / f"{band}.tif", np.full((size, size), 9000, np.uint16))
    return root


def test_chips_that_cannot_be_used_are_listed_at_the_end_and_the_others_have_masks(bright, tmp_path):
    bright_set(tmp_path / "set", "abcde")
    (tmp_path / "set" / "b" / "B04.tif").unlink()
    (tmp_path / "set" / "d" / "B02.tif").write_bytes(b"no image")
    write_tif(tmp_path / "set" / "e" / "B08.tif", np.full((32, 64), 9000, np.uint16))
    chips = find_images([tmp_path / "set"], BANDS)
    with pytest.raises(UnusableImagesError) as caught:
        predict_images(Predictor([bright()], batch=2), chips, Outputs(tmp_path / "out"))
    text = str(caught.value)
    assert text.startswith("3 of 5 images have no mask")
    assert "\n  b: B04: " in text
    assert "B04.tif is missing" in text
    assert "\n  d: B02: " in text
    assert "\n  e: B08: is 32 x 64 pixels, expected 64 x 64" in text
    assert sorted(path.name for path in (tmp_path / "out").glob("*.tif")) == ["a.tif", "c.tif"]


def test_a_policy_that_does_not_fit_a_chip_names_it(bright, tmp_path):
    bright_set(tmp_path / "set", "a")
    for band in BANDS:
        write_tif(tmp_path / "set" / "wide" / f"{band}.tif", np.full((32, 64), 9000, np.uint16))
    with pytest.raises(UnusableImagesError, match="wide: TTA policy d4 needs square chips, got 32 x 64"):
        predict_images(Predictor([bright()], "d4"), find_images([tmp_path / "set"], BANDS), Outputs(tmp_path / "out"))
    assert (tmp_path / "out" / "a.tif").exists()


def test_a_chip_whose_name_is_no_text_is_named_and_all_others_are_done(bright, tmp_path):
    bright_set(tmp_path / "set", ["a", "b"])
    try:
        (tmp_path / "set/a").rename(tmp_path / "set" / os.fsdecode(b"a\xff"))
    except OSError:
        pytest.skip("the file system only takes names that are text")
    words = ["predict", tmp_path / "set", "--model", bright(), "--out", tmp_path / "out", "--device", "cpu"]
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 1
    assert "B02.tif has a name that is no text, which GDAL cannot open: rename it" in result.output
    assert (tmp_path / "out/b.tif").exists()


def test_masks_have_the_names_of_their_chips_and_spare_files_of_others(bright, tmp_path, caplog):
    names = ["my chip", "a,b (1)", "50%{}", "~x"]
    bright_set(tmp_path / "set", [*names, "c\nd"])
    words = ["predict", tmp_path / "set", "--model", bright(), "--out", tmp_path / "out", "--device", "cpu"]
    for name in names:
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / f"{name}.tif").write_text("mine")
        result = CliRunner().invoke(main, [str(word) for word in words])
        assert "was not made by cloudcover and would be overwritten" in result.output
        assert (tmp_path / "out" / f"{name}.tif").read_text() == "mine"
        shutil.rmtree(tmp_path / "out")
    assert CliRunner().invoke(main, [str(word) for word in words]).exit_code == 0
    made = {f"{name}.tif" for name in [*names, "c_d"]}
    assert {path.name for path in (tmp_path / "out").glob("[!.]*")} == made == owned(tmp_path / "out")
    CliRunner().invoke(main, [str(word) for word in [*words, "--skip-existing"]])
    assert "5 of 5 images already have their masks" in caplog.text


def test_processes_write_the_masks_that_threads_write(bright, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for number in range(11):
        size = 64 if number != 5 else 160  # more than the memory of a batch
        for band in BANDS:
            pixels = rng.integers(0, 9000, (size, size)).astype(np.uint16)
            write_tif(tmp_path / "set" / f"c{number:02d}" / f"{band}.tif", pixels)
    (tmp_path / "set" / "c07" / "B08.tif").unlink()
    chips = find_images([tmp_path / "set"], BANDS)
    predictor = Predictor([bright()], "flips", batch=3)
    for name, number in (("threads", 0), ("processes", 2)):
        with monkeypatch.context() as patch:
            patch.setattr(predict_chips, "_processes", lambda *_, number=number: number)
            with pytest.raises(UnusableImagesError, match=r"1 of 11 images.*\n  c07: B08: "):
                predict_images(predictor, chips, Outputs(tmp_path / name))
    written = [sorted((tmp_path / name).glob("*.tif")) for name in ("threads", "processes")]
    assert len(written[0]) == 10
    assert [path.read_bytes() for path in written[0]] == [path.read_bytes() for path in written[1]]


def test_a_killed_process_ends_the_run_with_whole_masks_and_the_next_completes_them(bright, tmp_path, monkeypatch):
    folder = bright_set(tmp_path / "set", [f"c{number:02d}" for number in range(40)])
    chips, out, finished = find_images([folder], BANDS), tmp_path / "out", threading.Event()

    def kill_one():
        while len(multiprocessing.active_children()) < 2 and not finished.is_set():
            time.sleep(0.01)
        while not list(out.glob("*.tif")) and not finished.is_set():
            time.sleep(0.001)
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(predict_chips, "_processes", lambda *_: 2)
            with pytest.raises(BrokenProcessPool):
                predict_images(Predictor([bright()], batch=2), chips, Outputs(out))
    finally:
        finished.set()
        killer.join()
    for path in out.glob("[!.]*.tif"):
        assert read_mask(path, "mask")[0].shape == (64, 64)
    assert len(predict_images(Predictor([bright()]), chips, Outputs(out))) == 40
    assert not [path for path in out.iterdir() if ".part" in path.name]


def test_processes_for_files_load_no_torch():
    program = "import sys, cloudcover.predict.files; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_masks_of_the_device_are_those_of_its_probabilities(bright):
    settings = InferenceSettings(weights={"a": 0.8, "b": 0.2}, temperature=2.0, threshold=0.4)
    predictor = Predictor([bright(0.5, "a"), bright(1.5, "b")], "flips", batch=2, settings=settings)
    dn = np.random.default_rng(0).integers(0, 9000, (5, 4, 64, 64)).astype(np.uint16)
    dn[0, 0, :8] = 0
    percentiles = chip_percentiles(dn, 0)
    expected = mask_of(predictor.probabilities(dn, percentiles), dn, 0.4, 0)
    assert set(np.unique(expected)) == {0, 1, 255}
    np.testing.assert_array_equal(predictor.masks(dn, percentiles), expected)


@pytest.mark.parametrize("level", ["nan", "inf", "-inf"])
def test_weights_that_are_no_numbers_are_refused_with_model_and_chip(bright, tmp_path, level):
    folders = [bright(0.5, "good"), bright(float(level), "bad")]
    chips = find_images([bright_set(tmp_path / "set", "ab")], BANDS)
    with pytest.raises(NotFiniteError, match=r"chip a: the model .*/bad gives probabilities that are not finite"):
        predict_images(Predictor(folders), chips, Outputs(tmp_path / "out"))
    assert not list((tmp_path / "out").glob("*.tif"))


def test_the_folder_that_one_stands_in_is_a_chip_with_a_name(bright, tmp_path, monkeypatch):
    monkeypatch.chdir(bright_set(tmp_path / "set", ["here"]) / "here")
    (mask,) = predict_images(Predictor([bright()]), find_images([Path()], BANDS), Outputs(tmp_path / "out"))
    assert mask.name == "here.tif"


def test_too_little_memory_of_a_gpu_says_what_to_lower(bright, monkeypatch):
    def full(self, inputs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    predictor = Predictor([bright()], batch=2)
    monkeypatch.setattr(type(predictor.engines[0]), "logits", full)
    with pytest.raises(DeviceMemoryError, match=r"too small for 2 chips of 64 x 64 pixels: lower compute\.pred"):
        predictor.masks(chips_of(1, 2, 3), np.zeros((3, 4, 2), np.float32))


LIMITED = """
import resource, sys
import numpy as np, torch
from pathlib import Path
from cloudcover.predict.predictor import Predictor

torch.set_num_threads(1)
predictor = Predictor([Path(sys.argv[1])], device="cpu", batch=int(sys.argv[2]))
dn, percentiles = np.ones((64, 4, 512, 512), np.uint16), np.zeros((64, 4, 2), np.float32)
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (700 << 20), -1))
try:
    print(predictor.masks(dn[: int(sys.argv[3])], percentiles).shape)
except ValueError as error:
    print(error)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory as Linux does")
def test_too_little_memory_of_a_machine_says_what_to_lower(tmp_path):
    model = ModelParams.model_validate({"encoder": ENCODER, "decoder_channels": [16, 16, 8, 8, 8]})
    save_model(tmp_path / "model", build_model(model, BANDS), card())
    words = [sys.executable, "-c", LIMITED, tmp_path / "model"]
    printed = [
        subprocess.run([*words, batch, chips], capture_output=True, text=True, check=True).stdout
        for batch, chips in (("64", "64"), ("1", "2"))
    ]
    assert printed[0].startswith("the memory of cpu is too small for 64 chips of 512 x 512 pixels: lower compute.pred")
    assert printed[1] == "(2, 512, 512)\n"


@needs_gpu
def test_a_compiled_network_gives_the_masks_of_the_eager_one(tmp_path):
    model = ModelParams.model_validate({"encoder": ENCODER, "decoder_channels": [16, 16, 8, 8, 8]})
    save_model(tmp_path / "m", build_model(model, BANDS), card())
    dn = np.random.default_rng(0).integers(500, 9000, (8, 4, 64, 64)).astype(np.uint16)
    percentiles = chip_percentiles(dn, 0)
    predictor = Predictor([tmp_path / "m"], "vflip", "cuda", "fp32", batch=8)
    eager = predictor.masks(dn, percentiles)
    predictor.prepare(10**9)
    assert (predictor.masks(dn, percentiles) != eager).mean() <= 0.001


def test_the_temperature_of_the_card_divides_the_logits(bright):
    dn, percentiles = chips_of(9000), np.zeros((1, 4, 2), np.float32)
    plain, cooled = (
        Predictor([bright(name=n, temperature=t)]).probabilities(dn, percentiles) for n, t in (("a", 1), ("b", 4))
    )
    logit = np.log(plain / (1 - plain))
    np.testing.assert_allclose(cooled, 1 / (1 + np.exp(-logit / 4)), atol=1e-3)


def test_views_alone_average_to_their_policy(bright):
    predictor = Predictor([bright(0.5, "a"), bright(1.5, "b")], "d4", batch=2)
    dn = np.random.default_rng(0).integers(500, 9000, (3, 4, 64, 64)).astype(np.uint16)
    percentiles = chip_percentiles(dn, 0)
    views = [predictor.of_view(dn, percentiles, view) for view in POLICIES["d4"]]
    np.testing.assert_allclose(np.mean(views, axis=0), predictor.probabilities(dn, percentiles), atol=1e-5)


def test_out_of_fold_predictions_are_those_of_each_policy_and_take_time(bright, tmp_path):
    class Chips:
        """As much of a store as prediction needs."""

        dn = np.random.default_rng(0).integers(500, 9000, (4, 4, 64, 64)).astype(np.uint16)
        index = pd.DataFrame(index=["c0"])

        def require_bands(self, bands, whose):
            assert bands == BANDS

        def chips(self, ids):
            return self.dn[[int(i[1:]) for i in ids]]

        def percentiles(self, ids):
            return np.zeros((len(ids), 4, 2), np.float32)

        batches = staticmethod(ChipStore.batches)

    folds = pd.DataFrame({"chip_id": ["c0", "c1", "c2", "c3"], "fold": [0, 1, 0, 1], "scene": "s"})
    models = {0: [bright(0.5, "a")], 1: [bright(1.5, "b")]}
    compute = validate({"compute": {"prediction_batch": 3}}).compute
    predict_oof(Chips(), folds, models, ["none", "vflip", "d4"], compute, tmp_path / "oof")
    for policy in ("none", "vflip", "d4"):
        found = np.load(tmp_path / "oof" / f"{policy}.npy")
        for fold in (0, 1):
            mine = Chips.dn[fold::2]
            expected = Predictor(models[fold], policy).probabilities(mine, chip_percentiles(mine, 0))
            np.testing.assert_allclose(found[fold::2] / 255, expected, atol=0.5 / 255 + 1e-5)
    times = tables.SECONDS.read(tmp_path / "oof" / "seconds.csv").set_index("tta")["seconds"]
    assert 0 < times["none"] < times["vflip"] < times["d4"]
    # the test part: the mean of all models
    everything = {TEST: [*models[0], *models[1]]}
    predict_oof(Chips(), folds.assign(fold=TEST), everything, ["vflip"], compute, tmp_path / "test")
    expected = Predictor(everything[TEST], "vflip").probabilities(Chips.dn, chip_percentiles(Chips.dn, 0))
    np.testing.assert_allclose(np.load(tmp_path / "test/vflip.npy") / 255, expected, atol=0.5 / 255 + 1e-5)
    predict_oof(Chips(), folds[:0], models, ["vflip"], compute, tmp_path / "empty")
    assert np.load(tmp_path / "empty/vflip.npy").shape == (0, 64, 64)
    with pytest.raises(KeyError, match="1"):  # never zeros in place of predictions
        predict_oof(Chips(), folds, {0: models[0]}, ["vflip"], compute, tmp_path / "half")
    assert not (tmp_path / "half/index.csv").exists()


def test_a_bundle_applies_exactly_what_was_chosen(bright, tmp_path):
    folders = [bright(0.5, "final/unet/fold0"), bright(1.5, "final/unet/fold1")]
    settings = InferenceSettings(
        weights={"unet-fold0": 0.8, "unet-fold1": 0.2},
        temperature=2.0,
        threshold=0.4,
        postprocess=Postprocess(median_pixels=3, min_area_pixels=9),
    )
    write_bundle(folders, "vflip", settings, tmp_path / "bundle", {"jaccard": 0.9})
    assert "median pixels 3, min area pixels 9" in (tmp_path / "bundle" / "README.md").read_text()
    predictor = load_bundle(tmp_path / "bundle")
    dn = np.random.default_rng(0).integers(500, 9000, (3, 4, 64, 64)).astype(np.uint16)
    percentiles = chip_percentiles(dn, 0)
    parts = [Predictor([folder], "vflip").probabilities(dn, percentiles) for folder in folders]
    expected = apply_temperature(0.8 * parts[0] + 0.2 * parts[1], 2.0)
    found = predictor.probabilities(dn, percentiles)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    masks = predictor.masks(dn, percentiles)
    np.testing.assert_array_equal(masks, settings.postprocess.masks(found, 0.4))
    card = read_json(tmp_path / "bundle" / "bundle.json")
    card["settings"]["weights"] = {"unet-fold0": 1.0}
    write_json(tmp_path / "bundle" / "bundle.json", card)
    with pytest.raises(ModelFolderError, match=r"(?s)bundle\.json is not a bundle's card.*there are weights for"):
        load_bundle(tmp_path / "bundle")
    with pytest.raises(EnsembleError, match="the settings have weights for"):
        Predictor(folders, settings=settings)


# --- chips that are not as expected ---------------------------------------------------------------------------------


def set_of(folder: Path, number: int = 3) -> Path:
    for i in range(number):
        for band in BANDS:
            write_tif(folder / f"c{i}" / f"{band}.tif", np.full((64, 64), 900 + i, np.uint16))
    return folder


def masks_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("[!.]*"))


@pytest.mark.parametrize("band", BANDS)
def test_a_chip_without_a_band_is_named_and_all_others_are_done(bright, tmp_path, band):
    chips = set_of(tmp_path / "set")
    (chips / "c0" / f"{band}.tif").unlink()
    with pytest.raises(UnusableImagesError, match=rf"1 of 3 images have no mask.*\n  c0: .*{band}\.tif is missing"):
        predict_images(Predictor([bright()]), find_images([chips], BANDS), Outputs(tmp_path / "out"))
    assert masks_in(tmp_path / "out") == ["c1.tif", "c2.tif"]


def test_the_given_chip_without_its_first_band_is_named():
    if not (SHARED / "failing-inputs/missingfirst").exists():
        pytest.skip("shared/failing-inputs is not beside the project")
    assert [chip.name for chip in find_images([SHARED / "failing-inputs/missingfirst"], BANDS)] == ["c0", "c1"]


def test_a_chip_of_another_format_is_named_with_what_to_do(bright, tmp_path):
    chips = set_of(tmp_path / "set")
    for band in BANDS:
        (chips / "c1" / f"{band}.tif").rename(chips / "c1" / f"{band}.png")
    with pytest.raises(UnusableImagesError, match=r"c1: .*but B02\.png is there: .*`gdal_translate` converts it"):
        predict_images(Predictor([bright()]), find_images([chips], BANDS), Outputs(tmp_path / "out"))
    assert masks_in(tmp_path / "out") == ["c0.tif", "c2.tif"]


@pytest.mark.parametrize("suffix", [".TIF", ".tiff", ".TIFF"])
def test_chips_are_found_by_either_suffix_in_any_case_and_through_links(bright, tmp_path, suffix):
    chips = set_of(tmp_path / "set")
    for path in sorted(chips.rglob("*.tif")):
        path.rename(path.with_suffix(suffix))
    apart = set_of(tmp_path / "apart", 1)
    (apart / "c0").rename(apart / "c9")
    (chips / "c9").symlink_to(apart / "c9")
    (chips / "loop").symlink_to(chips)
    (chips / ".trash").mkdir()
    (chips / "c2").rename(chips / ".trash/c2")
    predict_images(Predictor([bright()]), find_images([chips], BANDS), Outputs(tmp_path / "out"))
    assert masks_in(tmp_path / "out") == ["c0.tif", "c1.tif", "c9.tif"]


def test_a_hundred_thousand_names_are_compared_in_seconds(tmp_path):
    names = [Found(f"c{i:06d}", "chip", f"chips/c{i:06d}", "", Request(tuple(BANDS))) for i in range(100_000)]
    begin = time.process_time()
    with pytest.raises(ValueError, match="several images are called c000000"):
        predict_images(SimpleNamespace(card=None), [*names, names[0]], Outputs(tmp_path / "out"))
    assert time.process_time() - begin < 10


def test_a_small_file_of_a_huge_image_is_named_before_its_pixels_are_read(bright, tmp_path):
    chips = set_of(tmp_path / "set")
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint16", "height": 60_000, "width": 60_000, "tiled": True}
    for band in BANDS:
        with rasterio.open(chips / "c1" / f"{band}.tif", "w", **profile, compress="deflate", SPARSE_OK=True):
            pass
    with pytest.raises(UnusableImagesError, match=r"c1: B02: is 60000 x 60000 pixels, more than"):
        predict_images(Predictor([bright()]), find_images([chips], BANDS), Outputs(tmp_path / "out"))
    assert masks_in(tmp_path / "out") == ["c0.tif", "c2.tif"]
