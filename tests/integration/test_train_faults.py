"""Training when things go wrong, or are shared: kill -9, too little memory, two processes."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from cloudcover.data import tables
from cloudcover.data.folds import TEST
from cloudcover.data.store import ChipStore
from cloudcover.runtime.device import DeviceError
from cloudcover.runtime.files import sha256
from cloudcover.train import run
from cloudcover.train.data import BatchLoader
from cloudcover.train.learner import Learner, NotFiniteError, OutOfMemoryError
from cloudcover.train.split import Split, SplitError
from cloudcover.train.state import ForeignStateError, last_state
from harness.forked import programs
from helpers.jobs import train_into
from helpers.networks import plain_network
from helpers.paths import ROOT, python_path
from helpers.training import dying_after, fit, learnable, recipe_of

CURVE = ["epoch", "learning_rate", "train_loss", "validation_loss", "validation_jaccard"]


def curve(folder: Path) -> pd.DataFrame:
    return tables.HISTORY.read(folder / "model" / "history.csv")[CURVE]


def test_training_that_is_killed_at_any_moment_ends_like_one_that_was_not(learnable_set, tmp_path):
    store, selection = learnable_set
    config = recipe_of(training={"steps": 12, "ema_decay": 0.9})
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cloudcover.train.run"])

    def start(folder: Path) -> Any:
        process = context.Process(target=train_into, args=(store.root, selection, folder, config))
        process.start()
        return process

    def finish(folder: Path) -> float:
        begin = time.perf_counter()
        process = start(folder)
        process.join(120)
        assert process.exitcode == 0
        return time.perf_counter() - begin

    finish(tmp_path / "first")  # the server starts, and caches are filled
    seconds = finish(tmp_path / "whole")
    expected = sha256(tmp_path / "whole" / "model" / "model.safetensors")
    killed = 0
    for number, moment in enumerate(np.random.default_rng(0).uniform(0.1, 0.95, 5)):
        folder = tmp_path / f"killed{number}"
        process = start(folder)
        process.join(moment * seconds)
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        process.join()
        assert not (folder / "model" / "model.json").exists() or process.exitcode == 0
        finish(folder)
        assert sha256(folder / "model" / "model.safetensors") == expected
        pd.testing.assert_frame_equal(curve(folder), curve(tmp_path / "whole"))
    assert killed >= 3


def test_too_little_memory_halves_the_micro_batch_and_keeps_the_batch(learnable_set, tmp_path, monkeypatch, caplog):
    fit(learnable_set, tmp_path / "small", recipe_of(training={"steps": 6, "micro_batch": 2}))
    forward = Learner.forward

    def limited(self, dn, percentiles):
        if self.network.training and len(dn) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, dn, percentiles)

    monkeypatch.setattr(Learner, "forward", limited)
    fit(learnable_set, tmp_path / "limited", recipe_of(training={"steps": 6}))
    assert "out of memory: from now on 2 chips per forward pass; the optimizer still steps every 4 chips" in caplog.text
    pd.testing.assert_frame_equal(curve(tmp_path / "small"), curve(tmp_path / "limited"))


def test_a_chip_that_does_not_fit_ends_training_and_says_what_to_lower(learnable_set, tmp_path, monkeypatch):
    def never(self, dn, percentiles):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Learner, "forward", never)
    with pytest.raises(
        OutOfMemoryError, match=r"not enough memory on cpu for 1 chips of \(4, 64, 64\): lower training.micro_batch"
    ):
        fit(learnable_set, tmp_path)


LIMITED = """
import logging, resource
import torch
from pathlib import Path
from cloudcover.models.build import build_model
from cloudcover.models.normalize import Normalize
from cloudcover.train.learner import Learner, OutOfMemoryError
from helpers.layouts import BANDS
from helpers.training import recipe_of

torch.set_num_threads(1)
logging.basicConfig(format="%(message)s")
recipe = recipe_of(training={"batch_size": 64, "loss": "cross_entropy"})
network = build_model(recipe.model, BANDS)
learner = Learner(network, Normalize(recipe.input, recipe.data), recipe.training, recipe.augmentation, 9, 0)

def batch(chips):
    dn = torch.ones(chips, 4, 128, 128, dtype=torch.int16).view(torch.uint16)
    return {
        "dn": dn, "percentiles": torch.zeros(chips, 4, 2), "target": torch.zeros(chips, 128, 128, dtype=torch.uint8),
        "weight": torch.ones(chips), "chip_id": [str(i) for i in range(chips)],
        "location": torch.zeros(chips, dtype=torch.int64), "locations": 1,
    }

batches = batch(64), batch(512)
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (700 << 20), -1))
learner.train_epoch([batches[0]], 0, lambda: None)
try:
    learner.validate([batches[1]])
except OutOfMemoryError as error:
    print(learner.micro_batch, error)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory as Linux does")
def test_memory_that_is_really_too_small_halves_the_micro_batch_and_refuses_to_validate():
    environment = {**os.environ, "PYTHONPATH": python_path(ROOT / "src", ROOT / "tests", ROOT / "benchmarks")}
    command = [sys.executable, "-c", LIMITED]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "out of memory: from now on 32 chips per forward pass" in done.stderr
    micro_batch, _, message = done.stdout.partition(" ")
    assert 1 <= int(micro_batch) <= 32
    assert "there is not enough memory on cpu for 512 chips of (4, 128, 128)" in message
    assert "compute.prediction_batch, for validation" in message


def test_a_loss_that_is_not_a_number_leaves_the_last_good_state_to_go_on_from(learnable_set, tmp_path, monkeypatch):
    learn = Learner.train_epoch

    def broken(self, batches, epoch, after_step):
        if epoch == 2:
            self.loss = lambda logits, *_: logits.sum() * float("nan")
        return learn(self, batches, epoch, after_step)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "train_epoch", broken)
        with pytest.raises(NotFiniteError, match="in epoch 2, batch 0"):
            fit(learnable_set, tmp_path / "broken")
    (state,) = (tmp_path / "broken" / "work").iterdir()
    found = last_state(state)
    assert found is not None
    assert found.stem == "epoch-00001"
    fit(learnable_set, tmp_path / "broken")
    fit(learnable_set, tmp_path / "whole")
    pd.testing.assert_frame_equal(curve(tmp_path / "broken"), curve(tmp_path / "whole"))


@pytest.mark.parametrize(
    ("name", "change"), [("round1", {"learning_rate": 0.02}), ("round1", {"seed": 7}), ("round2", {})]
)
def test_the_state_of_another_training_is_refused_with_both_names(learnable_set, tmp_path, monkeypatch, name, change):
    own, foreign = tmp_path / "own", tmp_path / "foreign"
    with monkeypatch.context() as patch:
        patch.setattr(run, "save_state", dying_after(1))
        for folder, recipe, what in ((own, recipe_of(), "round1"), (foreign, recipe_of(training=change), name)):
            with pytest.raises(KeyboardInterrupt):
                fit(learnable_set, folder, recipe, what)
    (mine,), (theirs,) = ((folder / "work").iterdir() for folder in (own, foreign))
    assert mine.name != theirs.name
    shutil.rmtree(mine)
    shutil.copytree(theirs, mine)
    before = {path.name: sha256(path) for path in mine.iterdir()}
    with pytest.raises(ForeignStateError, match=rf"by {name} fold 0 \(finger.*, but this is round1 fold 0 \(finger"):
        fit(learnable_set, own)
    assert {path.name: sha256(path) for path in mine.iterdir()} == before
    assert not (own / "model").exists()


def test_a_sealed_file_that_is_no_state_is_refused_by_name(learnable_set, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(run, "save_state", dying_after(1))
        with pytest.raises(KeyboardInterrupt):
            fit(learnable_set, tmp_path)
    (path,) = tmp_path.glob("work/*/epoch-00000.ckpt")
    for content in (b"PK", [1]):
        path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
        path.with_suffix(".sha256").write_text(sha256(path))
        with pytest.raises(ForeignStateError, match=rf"{path} (is not a training state|was saved by another program)"):
            fit(learnable_set, tmp_path)


def test_a_batch_that_cannot_be_gathered_ends_the_training(learnable_set, tmp_path, monkeypatch):
    def gone(*_):
        raise OSError("labels-00000.npy is gone")

    monkeypatch.setattr(ChipStore, "labels", gone)
    with pytest.raises(OSError, match="is gone"):
        fit(learnable_set, tmp_path)
    assert not (tmp_path / "model").exists()


def test_a_thread_that_dies_ends_the_training_and_an_epoch_is_never_short(learnable_set, tmp_path, monkeypatch):
    store, selection = learnable_set
    seen = [c for batch in BatchLoader(store, selection.training, 5, seed=1) for c in batch["chip_id"]]
    assert sorted(seen) == sorted(selection.training["chip_id"])  # the last batch is a smaller one
    gather, calls = BatchLoader._batch, []

    def die(self, items):
        calls.append(len(items))
        if len(calls) == 2:
            raise MemoryError("no memory for a batch")
        return gather(self, items)

    monkeypatch.setattr(BatchLoader, "_batch", die)
    with pytest.raises(MemoryError, match="no memory for a batch"):
        fit(learnable_set, tmp_path)
    assert not (tmp_path / "model").exists()


def test_a_shard_that_was_cut_ends_the_training_and_is_named(learnable_set, tmp_path):
    store, selection = learnable_set
    copy = shutil.copytree(store.root, tmp_path / "store")
    shard = next(copy.glob("chips-*.npy"))
    shard.write_bytes(shard.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=shard.name):
        fit((ChipStore(copy), selection), tmp_path)


def test_an_absent_gpu_that_was_asked_for_is_an_error(learnable_set, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match=r"cuda was requested \(compute\.device or --device\), but torch finds no"):
        fit(learnable_set, tmp_path, recipe_of(compute={"device": "cuda"}))


def test_micro_batches_add_up_to_the_batch(learnable_set, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "build_model", plain_network)
    monkeypatch.setattr(run, "save_model", lambda *_: None)
    for size in (1, 3, 4):
        fit(learnable_set, tmp_path / str(size), recipe_of(training={"loss": "cross_entropy", "micro_batch": size}))
    for size in (1, 3):
        pd.testing.assert_frame_equal(curve(tmp_path / str(size)), curve(tmp_path / "4"), rtol=1e-4)


PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import pandas as pd
from helpers.networks import plain_network
from helpers.training import recipe_of
from helpers.networks import plain_network
from cloudcover.data.store import ChipStore
from cloudcover.train import run
from cloudcover.train.split import Split

folder = Path(sys.argv[2])
run.build_model, run.save_model = plain_network, lambda *_: None
items = pd.read_pickle(folder / "selection.pkl")
recipe = recipe_of(
    training={"batch_size": 5, "loss": "bce_lovasz"}, augmentation={"hflip": 0, "vflip": 0},
    compute={"devices": int(sys.argv[3])},
)
out = folder / sys.argv[3] / "model"
run.train(recipe, ChipStore(sys.argv[4]), Split(*items), out, folder / "work", run="round1", fold=0)
"""


def test_two_processes_learn_what_one_learns_from_the_same_batches(learnable_set, tmp_path):
    store, selection = learnable_set
    pd.to_pickle([selection.training, selection.validation], tmp_path / "selection.pkl")
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "CUDA_VISIBLE_DEVICES": ""}
    for devices in ("1", "2"):
        command = [programs() / "python", tmp_path / "program.py", ROOT / "tests", tmp_path, devices, store.root]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
        assert result.returncode == 0, result.stderr[-3000:]
    pd.testing.assert_frame_equal(curve(tmp_path / "1"), curve(tmp_path / "2"), rtol=1e-4)


def test_processes_share_each_batch_and_even_it_out_with_chips_that_do_not_count(learnable_set):
    store, selection = learnable_set
    items = selection.training[:11]
    whole = list(BatchLoader(store, items, 4, seed=1, epoch=2))
    shares = [list(BatchLoader(store, items, 4, seed=1, epoch=2, rank=rank, processes=3)) for rank in range(3)]
    for number, batch in enumerate(whole):
        parts = [share[number] for share in shares]
        assert len({len(part["chip_id"]) for part in parts}) == 1
        counted = [c for part in parts for c, w in zip(part["chip_id"], part["weight"], strict=True) if w > 0]
        assert sorted(counted) == sorted(batch["chip_id"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fold": TEST}, "chips of the test part in training or validation"),
        ({"label": "pseudo"}, "pseudo-labels in validation"),
        ({"scene": "of both"}, "scenes in training and in validation: of both"),
    ],
)
def test_training_refuses_a_leak_before_it_begins(tmp_path, change, message):
    store, split = learnable(tmp_path)
    training = split.training.copy()
    if "scene" in change:
        training.loc[0, "scene"] = change["scene"]
    leaking = Split(training, split.validation.assign(**change))
    with pytest.raises(SplitError, match=message):
        fit((store, leaking), tmp_path)
    assert not (tmp_path / "model").exists()
    assert not (tmp_path / "work").exists()
