"""Processes that are killed or told to end: what they leave is never taken for a file, and the next run removes it."""

from __future__ import annotations

import multiprocessing
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

from cloudcover.config.sections import DataParams, ModelParams, SyntheticParams
from cloudcover.data import ownership, shards
from cloudcover.data.layout import write_file_table
from cloudcover.data.pack import pack
from cloudcover.data.store import ChipStore
from cloudcover.masks.decision import InferenceSettings
from cloudcover.models.build import build_model
from cloudcover.models.folder import save_model
from cloudcover.predict.bundle import write_bundle
from cloudcover.predict.openvino.card import load_export
from cloudcover.runtime.files import atomic, remove_leftovers, sha256, write_text
from cloudcover.sources.fetch import fetch
from helpers.jobs import export_into, predict_into
from helpers.layouts import BANDS, make_layout
from helpers.networks import ENCODER, card
from helpers.stores import params
from helpers.writers import KILL, WRITERS

SEEDS = range(20)


def parts(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if ".part" in path.name]


def hashes(folder: Path) -> dict[str, str]:
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and not p.name.startswith("."))
    return {path.relative_to(folder).as_posix(): sha256(path) for path in files}


@pytest.mark.parametrize("name", list(WRITERS))
def test_what_a_killed_process_left_is_removed_by_the_next_that_writes_there(tmp_path, name):
    subprocess.run([sys.executable, "-c", KILL + WRITERS[name], tmp_path / name], capture_output=True, check=False)
    assert parts(tmp_path)
    subprocess.run([sys.executable, "-c", KILL.split("os.fsync")[0] + WRITERS[name], tmp_path / name], check=True)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_another_process_writes_at_the_moment_stays(tmp_path):
    with atomic(tmp_path / "table.csv") as part:
        remove_leftovers(tmp_path)
        assert part.exists()
        part.write_text("x")
    assert (tmp_path / "table.csv").read_text() == "x"


NAMES = st.from_regex(r"\.?[a-z-]{1,4}(-[a-z0-9_]{7,9})?(\.part)?(\.tif)?", fullmatch=True)


@given(st.sets(NAMES, max_size=6))
def test_only_names_of_temporary_files_are_removed(names):
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            Path(folder, name).write_text("x")
        remove_leftovers(Path(folder))
        left = {path.name for path in Path(folder).iterdir()}
        assert {n for n in names if not re.fullmatch(r"\..*-[a-z0-9_]{8}\.part(\.tif)?", n)} == left


def test_a_link_of_that_name_is_left_alone(tmp_path):
    write_text(tmp_path / "mine.tif", "mine")
    (tmp_path / ".x-abcdefgh.part.tif").symlink_to("mine.tif")
    remove_leftovers(tmp_path)
    assert (tmp_path / "mine.tif").exists()
    assert (tmp_path / ".x-abcdefgh.part.tif").is_symlink()


def test_a_stage_removes_what_was_left_beside_files_that_it_no_longer_writes(tmp_path):
    ownership.claim(tmp_path)
    ownership.reserve(tmp_path, ["a/old.tif", "b.tif"])
    (tmp_path / "a").mkdir()
    (tmp_path / "a/.old.tif.part").write_text("half")
    (tmp_path / ".b-abcdefgh.part.tif").write_text("half")
    ownership.reserve(tmp_path, ["c.tif"])
    ownership.prune(tmp_path, ["c.tif"])
    assert parts(tmp_path) == []


def killed(work, *arguments, after_s: float) -> None:
    """Runs a function in a process of its own, which is killed after a while."""
    process = multiprocessing.get_context("fork").Process(target=work, args=arguments)
    process.start()
    time.sleep(after_s)
    process.kill()
    process.join()


@pytest.fixture(scope="module")
def chips(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    make_layout(folder, chips=12)
    write_file_table(folder, "test")
    return folder


@pytest.mark.parametrize("seed", SEEDS)
def test_packing_that_is_killed_changes_nothing_and_is_gone_on_with(chips, tmp_path, seed):
    before, out = hashes(chips), tmp_path / "store"
    arguments = (chips, out, tmp_path / "quarantine.csv", params(chips_per_shard=2))
    killed(pack, *arguments, after_s=random.Random(seed).uniform(0, 0.6))
    for path in out.glob("*.npy") if out.exists() else ():
        assert path.stat().st_size > 128
    pack(*arguments)
    assert parts(tmp_path) == []
    assert shards.verify(out).empty
    assert len(ChipStore(out)) == 12
    assert hashes(chips) == before


@pytest.mark.parametrize("link", ["copy", "hardlink", "symlink"])
@pytest.mark.parametrize("seed", SEEDS[:7])
def test_a_download_that_is_killed_changes_nothing_and_is_gone_on_with(chips, tmp_path, seed, link):
    before, raw = hashes(chips), tmp_path / "raw"
    data = DataParams.model_validate({"source": "local", "path": str(chips), "chip_size": 64, "link": link})
    arguments = (data, SyntheticParams(), 0, raw, tmp_path / "truth")
    killed(fetch, *arguments, after_s=random.Random(seed).uniform(0, 0.2))
    fetch(*arguments)
    assert parts(tmp_path) == []
    assert hashes(chips) == before
    assert {path: digest for path, digest in hashes(raw).items() if path != "files.csv"} == {
        path: digest for path, digest in before.items() if path != "files.csv"
    }


def test_sigterm_removes_what_is_half_written(tmp_path):
    command = [sys.executable, "-m", "cloudcover", "synth", tmp_path / "set", "--chips", "400"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(tmp_path.rglob("[!.]*.tif")):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    assert list(tmp_path.rglob("[!.]*.tif"))
    assert not (tmp_path / "set/files.csv").exists()
    assert parts(tmp_path) == []


def test_sigterm_ends_a_write_like_an_error(tmp_path):
    program = (
        "import sys, time; from pathlib import Path; from cloudcover.runtime.files import atomic\n"
        "from cloudcover.runtime.signals import end_cleanly; end_cleanly()\n"
        "with atomic(Path(sys.argv[1])) as part:\n    part.write_text('half'); print('now', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", program, tmp_path / "table.csv"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    assert parts(tmp_path)
    process.terminate()
    assert process.wait(30) == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


# --- models and masks ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> list[Path]:
    """Two model folders of random weights."""
    root, made = tmp_path_factory.mktemp("models"), []
    params = ModelParams.model_validate({"encoder": ENCODER, "decoder_channels": [16, 16, 8, 8, 8]})
    for fold in range(2):
        folder = root / "final/unet" / f"fold{fold}"
        save_model(folder, build_model(params, BANDS), card(fold=fold))
        made.append(folder)
    return made


def bundle_of(models: list[Path], out: Path) -> None:
    settings = InferenceSettings(weights={f"unet-{folder.name}": 1 / len(models) for folder in models}, threshold=0.5)
    write_bundle(models, "none", settings, out)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_bundle_that_is_killed_is_none_and_is_gone_on_with(models, tmp_path, seed):
    before = [hashes(folder) for folder in models]
    killed(bundle_of, models, tmp_path, after_s=random.Random(seed).uniform(0, 0.05))
    complete = (tmp_path / "bundle.json").exists()
    for name in ("unet-fold0", "unet-fold1"):
        assert not complete or hashes(tmp_path / name) == before[int(name[-1])]
    bundle_of(models, tmp_path)
    assert parts(tmp_path) == []
    assert [hashes(tmp_path / f"unet-fold{fold}") for fold in range(2)] == before
    assert [hashes(folder) for folder in models] == before


@pytest.mark.parametrize("seed", SEEDS)
def test_a_prediction_that_is_killed_leaves_whole_masks_and_is_gone_on_with(models, chips, tmp_path, seed):
    before, out = hashes(chips), tmp_path / "masks"
    context = multiprocessing.get_context("forkserver")  # no threads of torch to be copied
    context.set_forkserver_preload(["helpers.jobs"])
    process = context.Process(target=predict_into, args=(models[0], chips, out))
    process.start()
    wait = random.Random(seed).uniform(0, 1.5)
    while process.is_alive() and not parts(tmp_path) and wait > 0:
        time.sleep(0.005)
        wait -= 0.005
    time.sleep(random.Random(seed).uniform(0, 0.05))
    process.kill()
    process.join()
    for path in out.glob("[!.]*.tif"):
        with rasterio.open(path) as mask:
            assert mask.read(1).shape == (64, 64)
    predict_into(models[0], chips, out)
    assert parts(tmp_path) == []
    assert len(list(out.glob("[!.]*.tif"))) == 12
    assert hashes(chips) == before


@pytest.mark.skipif(find_spec("openvino") is None, reason="needs the extra cloudcover[openvino]")
def test_exports_that_are_killed_are_none_and_are_gone_on_with(models, tmp_path):
    """One after the other into the same folder: each meets what the one before left, and the last is complete."""
    bundle, out = tmp_path / "bundle", tmp_path / "fast"
    bundle_of(models[:1], bundle)
    before = hashes(bundle)
    context = multiprocessing.get_context("forkserver")  # no threads of torch to be copied
    context.set_forkserver_preload(["helpers.jobs"])
    export_into(bundle, out)
    complete = hashes(out)
    ended = []
    for seed in SEEDS:
        generator = random.Random(seed)
        process = context.Process(target=export_into, args=(bundle, out))
        process.start()
        writes = generator.random() < 0.7  # most of the time is spent on the graph, before anything is written
        deadline = time.monotonic() + (60 if writes else generator.uniform(0, 1))
        while process.is_alive() and time.monotonic() < deadline and not (writes and parts(tmp_path)):
            time.sleep(0.001)
        time.sleep(generator.uniform(0, 0.1) if writes else 0)
        process.kill()
        process.join()
        ended.append(process.exitcode)
        model = out / "unet-fold0"
        if (out / "bundle.json").exists():
            assert hashes(out).keys() == complete.keys()
        if (model / "export.json").exists():
            load_export(model)
        assert hashes(bundle) == before
    assert ended.count(-signal.SIGKILL) >= 5
    export_into(bundle, out)
    assert parts(tmp_path) == []
    assert hashes(out).keys() == complete.keys()
    load_export(model)
