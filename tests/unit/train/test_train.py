"""Training: it learns, it repeats, and a killed run ends like one that was never killed."""

import os

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from cloudcover.config.params import load
from cloudcover.data import tables
from cloudcover.evaluate.metrics import location_mean
from cloudcover.masks.overlap import confusion
from cloudcover.models.folder import load_model
from cloudcover.predict.predictor import Predictor
from cloudcover.runtime.files import read_json, sha256
from cloudcover.train import learner, run
from cloudcover.train.data import BatchLoader
from cloudcover.train.ema import EMA
from cloudcover.train.learner import NotFiniteError, cosine
from cloudcover.train.run import train, training_fingerprint
from cloudcover.train.split import Split
from cloudcover.train.state import last_state
from helpers.paths import ROOT
from helpers.training import dying_after, fit, learnable, needs_gpu, recipe_of


@pytest.fixture(scope="module")
def fitted(learnable_set, tmp_path_factory):
    """Folder of a training by the tiny recipe; only to be read."""
    folder = tmp_path_factory.mktemp("fitted")
    fit(learnable_set, folder)
    return folder


def test_a_model_learns_and_its_folder_predicts_by_itself(learnable_set, tmp_path):
    card = fit(learnable_set, tmp_path, recipe_of(training={"steps": 24}))
    history = tables.HISTORY.read(tmp_path / "model" / "history.csv")
    assert len(history) == 8
    # Nothing is selected, so every second of eight passes is validated, the last one among them.
    assert history["validation_jaccard"].notna().tolist() == [False, True] * 4
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0] / 2
    assert card.metrics["validation_jaccard"] == history["validation_jaccard"].iloc[-1]
    assert card.metrics["validation_jaccard"] > 0.8
    assert not (tmp_path / "work").exists() or not list((tmp_path / "work").iterdir())
    store, selection = learnable_set
    ids = selection.validation["chip_id"].tolist()
    predictor = Predictor([tmp_path / "model"], "flips", batch=4)
    predicted = predictor.probabilities(store.chips(ids), store.percentiles(ids)) > 0.5
    label = store.labels(ids) == 1
    assert (predicted & label).sum() / (predicted | label).sum() > 0.8


def test_the_best_epoch_may_be_chosen_by_the_mean_over_locations(learnable_set, tmp_path):
    card = fit(learnable_set, tmp_path, recipe_of(training={"monitor": "location_mean"}))
    history = tables.HISTORY.read(tmp_path / "model" / "history.csv")
    assert card.metrics["validation_location_mean"] == pytest.approx(history["validation_location_mean"].max())
    assert card.metrics["epoch"] == history["validation_location_mean"].argmax()
    best = history.loc[history["epoch"] == card.metrics["epoch"]].iloc[0]
    figures = ("epoch", "validation_loss", "validation_jaccard", "validation_location_mean")
    assert card.metrics == {name: pytest.approx(best[name]) for name in figures}
    store, selection = learnable_set
    counts = store.index.loc[selection.validation["chip_id"], ["chip_id", "location"]].reset_index(drop=True)
    ids = counts["chip_id"].tolist()
    predicted = Predictor([tmp_path / "model"]).probabilities(store.chips(ids), store.percentiles(ids)) > 0.5
    columns = ["tp_pixels", "fp_pixels", "fn_pixels", "tn_pixels"]
    counts[columns] = confusion(predicted, store.labels(ids))
    assert location_mean(counts) == pytest.approx(card.metrics["validation_location_mean"])


def test_a_reduced_copy_of_the_full_preset_trains_an_epoch(learnable_set, tmp_path):
    params = load(ROOT / "config" / "presets" / "full.yaml")
    values = params.model_dump() | {"data": params.data.model_dump() | {"source": "synthetic", "chip_size": 64}}
    values["training"] |= {"steps": 3, "batch_size": 4}
    values["model"]["encoder_weights"] = None
    sections = [name for name in vars(recipe_of()) if name != "seed"]
    config = recipe_of(**{name: values[name] for name in sections})
    assert (config.model.encoder, config.model.architecture) == ("tu-resnest50d", "unet")
    card = fit(learnable_set, tmp_path, config)
    assert 0 <= card.metrics["validation_jaccard"] <= 1
    assert load_model(tmp_path / "model")[1].encoder == "tu-resnest50d"


def test_runs_of_any_size_take_the_same_number_of_steps(learnable_set, tmp_path, monkeypatch, caplog):
    store, whole = learnable_set
    taken: dict[str, list[int]] = {}
    step = learner.Learner._step
    monkeypatch.setattr(learner.Learner, "_step", lambda self: (taken[name].append(1), step(self)))
    caplog.set_level("INFO")
    for name, number in (("large", 12), ("small", 5)):
        taken[name] = []
        part = Split(whole.training.iloc[:number], whole.validation)
        fit((store, part), tmp_path / name, recipe_of(training={"steps": 7}))
    assert {name: len(steps) for name, steps in taken.items()} == {"large": 7, "small": 7}
    rates = [tables.HISTORY.read(tmp_path / name / "model/history.csv")["learning_rate"] for name in taken]
    assert [len(rate) for rate in rates] == [3, 7]  # 12 chips: 3 steps a pass, the third of one step; 5 chips: one
    assert rates[0].iloc[-1] == rates[1].iloc[-1] == recipe_of().training.min_learning_rate
    assert "epoch 3, step 7/7" in caplog.text


def test_no_label_of_the_held_out_fold_has_a_say_in_the_weights(learnable_set, fitted, tmp_path):
    """The weights of the last step are published, so nothing is chosen on chips that judge the model."""
    store, selection = learnable_set
    foreign = Split(selection.training, selection.validation.iloc[::-1].iloc[:1].reset_index(drop=True))
    fit((store, foreign), tmp_path / "other")
    given, other = (sha256(folder / "model/model.safetensors") for folder in (fitted, tmp_path / "other"))
    assert given == other


def test_threads_are_part_of_what_determines_a_training(learnable_set, tmp_path):
    store, selection = learnable_set
    one, two = (
        training_fingerprint(recipe_of(compute={"threads": threads}), store, selection, None) for threads in (1, 2)
    )
    assert one != two
    fit(learnable_set, tmp_path, recipe_of(compute={"threads": 2}, training={"steps": 1}))
    assert torch.get_num_threads() == 2
    fit(learnable_set, tmp_path, recipe_of(training={"steps": 1}))
    assert torch.get_num_threads() == 1


def test_the_seed_of_trainings_changes_them_alone(learnable_set, tmp_path):
    for seed in (0, 1):
        fit(learnable_set, tmp_path / str(seed), recipe_of(training={"seed": seed, "steps": 2}))
    first, second = (read_json(tmp_path / str(seed) / "model/model.json") for seed in (0, 1))
    assert first["seed"] != second["seed"]


def test_the_same_seed_gives_the_same_weights_and_another_run_other_ones(learnable_set, fitted, tmp_path):
    fit(learnable_set, tmp_path / "same")
    fit(learnable_set, tmp_path / "other", name="round2")
    folders = (fitted, tmp_path / "same", tmp_path / "other")
    digests = [sha256(folder / "model/model.safetensors") for folder in folders]
    assert digests[0] == digests[1] != digests[2]


def test_a_training_cut_off_after_its_early_stop_does_not_train_on(learnable_set, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "build_model", lambda *_: nn.Conv2d(4, 1, 1))
    config = recipe_of(
        training={"steps": 18, "monitor": "jaccard", "patience": 1, "learning_rate": 1e-9, "min_learning_rate": 0}
    )
    fit(learnable_set, tmp_path / "whole", config)
    history = tables.HISTORY.read(tmp_path / "whole/model/history.csv")
    assert len(history) < 6
    with monkeypatch.context() as patch:
        patch.setattr(run, "save_state", dying_after(len(history)))
        with pytest.raises(KeyboardInterrupt):
            fit(learnable_set, tmp_path / "cut", config)
    fit(learnable_set, tmp_path / "cut", config)
    assert len(tables.HISTORY.read(tmp_path / "cut/model/history.csv")) == len(history)
    assert sha256(tmp_path / "cut/model/model.safetensors") == sha256(tmp_path / "whole/model/model.safetensors")


@pytest.mark.parametrize("decay", [None, 0.9])
def test_an_interrupted_training_ends_like_an_uninterrupted_one(learnable_set, tmp_path, decay, monkeypatch):
    config = recipe_of(training={"steps": 8, "ema_decay": decay})
    fit(learnable_set, tmp_path / "whole", config)
    with monkeypatch.context() as patch:
        patch.setattr(run, "save_state", dying_after(2))
        with pytest.raises(KeyboardInterrupt):
            fit(learnable_set, tmp_path / "cut", config)
    assert not (tmp_path / "cut" / "model").exists()
    fit(learnable_set, tmp_path / "cut", config)
    assert sha256(tmp_path / "cut/model/model.safetensors") == sha256(tmp_path / "whole/model/model.safetensors")
    columns = ["epoch", "learning_rate", "train_loss", "validation_loss", "validation_jaccard"]
    whole, cut = (tables.HISTORY.read(tmp_path / x / "model/history.csv")[columns] for x in ("whole", "cut"))
    pd.testing.assert_frame_equal(whole, cut)


def test_a_damaged_state_is_passed_over_for_the_one_before(learnable_set, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(run.shutil, "rmtree", lambda *_, **__: None)
    fit(learnable_set, tmp_path)
    (state,) = (tmp_path / "work").iterdir()
    newest = sorted(state.glob("*.ckpt"))[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    found = last_state(state)
    assert found is not None
    assert found.name == "epoch-00001.ckpt"
    assert "epoch-00002.ckpt is damaged" in caplog.text


def test_a_poisoned_state_does_not_run_its_code(learnable_set, tmp_path, monkeypatch):
    class Poison:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "owned"),))

    poison = tmp_path / "epoch-00000.ckpt"
    torch.save({"state_dict": Poison()}, poison)
    monkeypatch.setattr(run, "last_state", lambda folder: poison)
    with pytest.raises(Exception, match=r"(?i)weights.only"):
        fit(learnable_set, tmp_path)
    assert not (tmp_path / "owned").exists()


def test_a_loss_that_is_not_a_number_names_the_chips(learnable_set, tmp_path, monkeypatch):
    monkeypatch.setattr(learner, "build_loss", lambda *_: lambda logits, *_: logits.sum() * float("nan"))
    with pytest.raises(NotFiniteError, match=r"loss is nan in epoch 0, batch 0, chips c\d+, c\d+"):
        fit(learnable_set, tmp_path)


class Uncertain:
    """Pseudo-labels that say cloud with a given certainty, soft or as masks."""

    def __init__(self, certainty: float, soft: bool) -> None:
        self.certainty, self.soft = certainty, soft

    def targets(self, chip_ids):
        masks = np.full((len(chip_ids), 64, 64), self.certainty, np.float32)
        return masks if self.soft else (masks > 0.5).astype(np.uint8)


@pytest.mark.parametrize("loss", ["cross_entropy", "lovasz"])
def test_a_student_of_soft_labels_is_less_sure_than_one_of_masks(learnable_set, tmp_path, loss):
    store, selection = learnable_set
    taught = Split(selection.training.assign(label="pseudo"), selection.validation)
    config = recipe_of(training={"loss": loss, "steps": 12}, augmentation={"mosaic": 0.5, "chessmix": 0.5})
    ids = selection.validation["chip_id"].tolist()
    means = []
    for soft in (True, False):
        folder = tmp_path / str(soft)
        masks = Uncertain(0.6, soft)
        train(config, store, taught, folder / "model", folder / "work", run="round2", fold=0, masks=masks)
        means.append(Predictor([folder / "model"]).probabilities(store.chips(ids), store.percentiles(ids)).mean())
    assert 0.4 < means[0] < means[1] - 0.05
    prints = [training_fingerprint(config, store, taught, Uncertain(0.6, soft)) for soft in (True, False)]
    assert prints[0] != prints[1]


def test_the_fingerprint_sees_parameters_and_chips(learnable_set):
    store, selection = learnable_set
    base = training_fingerprint(recipe_of(), store, selection, None)
    assert base == training_fingerprint(recipe_of(), store, selection, None)
    assert base != training_fingerprint(recipe_of(training={"learning_rate": 0.02}), store, selection, None)
    fewer = type(selection)(selection.training[1:], selection.validation)
    assert base != training_fingerprint(recipe_of(), store, fewer, None)


def test_the_schedule_warms_up_peaks_and_ends_at_its_floor():
    values = [cosine(step, 100, 10, 0.01) for step in range(101)]
    assert values[0] == pytest.approx(1 / 11)
    assert max(values) == values[10] == 1.0
    assert values[100] == pytest.approx(0.01)
    assert values[10:] == sorted(values[10:], reverse=True)


def test_the_card_tells_where_the_model_came_from(fitted):
    card = read_json(fitted / "model/model.json")
    assert card["run"] == "round1"
    assert card["bands"] == ["B02", "B03", "B04", "B08"]
    assert len(card["fingerprint"]) == 64
    assert load_model(fitted / "model")[1].versions["torch"].startswith("2.")


def test_the_average_is_the_formula_and_is_only_lent_to_the_network():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    average, expected = EMA(network, 0.9), {}
    with average.applied():
        pass  # before the first step there is nothing to apply
    for step in range(1, 30):
        network(torch.randn(2, 1, 5, 5))
        with torch.no_grad():
            network[0].weight += torch.randn_like(network[0].weight)
        average.update()
        decay = min(0.9, (1 + step) / (10 + step))
        for name, value in network.state_dict().items():
            old = expected.get(name, value.clone())
            expected[name] = value.clone() if not value.is_floating_point() else old.lerp(value, 1 - decay)
    own = {name: value.clone() for name, value in network.state_dict().items()}
    with average.applied():
        torch.testing.assert_close(dict(network.state_dict()), expected, rtol=0, atol=0)
    torch.testing.assert_close(dict(network.state_dict()), own, rtol=0, atol=0)


def test_a_resumed_average_of_the_weights_moves_to_the_device_of_the_weights():
    average = EMA(nn.Linear(2, 1, device="meta"), 0.9)
    average.load_state_dict({"steps": 3, "average": {"weight": torch.zeros(1, 2), "bias": torch.zeros(1)}})
    assert [tensor.device.type for tensor in average.state_dict()["average"].values()] == ["meta", "meta"]


def test_a_last_batch_of_one_chip_joins_the_one_before(tmp_path):
    chips = learnable(tmp_path, size=32)  # at 32 pixels the encoder ends in one pixel: no variance for batch norm
    store, selection = chips
    batches = [batch["chip_id"] for batch in BatchLoader(store, selection.training[:9], 4, seed=1)]
    assert [len(batch) for batch in batches] == [4, 5]
    fewer = store, Split(selection.training[:9], selection.validation)
    epoch = {"data": {"chip_size": 32}, "training": {"steps": 2}}
    fit(fewer, tmp_path, recipe_of(**epoch))
    fit(fewer, tmp_path / "fp16", recipe_of(**epoch, compute={"precision": "fp16"}))


def test_batches_picked_on_the_device_are_those_that_are_gathered(learnable_set):
    store, selection = learnable_set
    for rank in range(2):
        share = {"rank": rank, "processes": 2}
        loaders = [BatchLoader(store, selection.training, 5, 3, resident=kept, **share) for kept in (False, True)]
        for epoch in range(2):
            for loader in loaders:
                loader.epoch = epoch
            for gathered, picked in zip(*loaders, strict=True):
                assert torch.equal(torch.from_numpy(np.stack(gathered["dn"])), picked["dn"])
                for name in ("target", "weight", "percentiles", "location"):
                    assert torch.equal(gathered[name], picked[name])
                for name in ("chip_id", "pseudo"):
                    assert gathered[name] == picked[name]


@needs_gpu
def test_two_trainings_on_a_gpu_give_equal_weights_wherever_the_chips_lie(learnable_set, tmp_path):
    for name, cache in (("a", False), ("b", False), ("c", True)):
        fit(learnable_set, tmp_path / name, recipe_of(compute={"device": "cuda", "device_cache": cache}))
    digests = {sha256(tmp_path / name / "model" / "model.safetensors") for name in "abc"}
    assert len(digests) == 1
