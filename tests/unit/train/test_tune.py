"""The search for augmentation: it starts from the present one, resumes after a stop, and refuses another's file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml
from click.testing import CliRunner
from optuna.trial import TrialState

from cloudcover.cli import main
from cloudcover.config.params import validate
from cloudcover.config.training import TrainingConfig
from cloudcover.data import tables
from cloudcover.runtime.locks import FolderBusyError, hold
from cloudcover.train import tune

CHIPS = [f"c{i}" for i in range(6)]


class ChipStore:
    """As much of a store as the fingerprint of a training needs."""

    index = pd.DataFrame({"chip_id": CHIPS, "source_sha256": "0"}).set_index("chip_id", drop=False)

    def __init__(self, root: Path | None = None) -> None:
        self.root = root


MANIFEST = pd.DataFrame(
    {"chip_id": CHIPS, "verdict": "clean", "label": "human", "source": "a", "reason": "", "score": 0.0, "time": ""}
)
FOLDS = pd.DataFrame({"chip_id": CHIPS, "fold": [0, 0, 1, 1, 2, 2], "scene": list("aabbcc")})


class Trainings:
    """Stands in for `train`: weak mosaics and much rotation are best."""

    def __init__(self) -> None:
        self.done: list[tuple[TrainingConfig, int]] = []
        self.stop_at: int | None = None

    def __call__(self, config, store, selection, output: Path, work: Path, *, run: str, fold: int):
        if len(self.done) == self.stop_at:
            raise KeyboardInterrupt
        output.mkdir(parents=True)
        self.done.append((config, fold))
        assert set(selection.validation["chip_id"]) == set(FOLDS.loc[FOLDS["fold"] == fold, "chip_id"])
        a = config.augmentation
        return SimpleNamespace(metrics={"validation_jaccard": 0.8 - 0.3 * a.mosaic + 0.001 * a.rotation - 0.01 * fold})


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Trainings:
    trainings = Trainings()
    monkeypatch.setattr(tune, "train", trainings)
    return trainings


def recipe_of(**augmentation: float) -> TrainingConfig:
    params = validate({"augmentation": augmentation})
    return TrainingConfig.of(params)


def run(folder: Path, trials: int, config: TrainingConfig | None = None, held_out: tuple[int, ...] = (0,)):
    config = config or recipe_of(hflip=0.25, cutmix=0.1)
    return tune.tune(config, ChipStore(), MANIFEST, FOLDS, held_out, trials, folder / "study.journal", folder / "work")


def test_the_first_trial_is_the_given_augmentation_and_only_the_searched_keys_change(
    trained: Trainings, tmp_path: Path
):
    study = run(tmp_path, 5)
    first, *others = [config.augmentation for config, _ in trained.done]
    assert first == recipe_of(hflip=0.25, cutmix=0.1).augmentation
    assert len({a.mosaic for a in others}) == 4
    for changed in others:
        assert changed.hflip == 0.25
        assert all(low <= getattr(changed, name) <= high for name, (low, high) in tune.RANGES.items())
    assert study.best_value == max(t.value for t in tune.finished(study))
    assert not list((tmp_path / "work").iterdir())


def test_a_stopped_study_goes_on_with_the_trial_that_was_cut_off(trained: Trainings, tmp_path: Path):
    trained.stop_at = 3
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, 6)
    trained.stop_at = None
    study = run(tmp_path, 6)
    assert len(tune.finished(study)) == len(trained.done) == 6
    (cut,) = study.get_trials(states=(TrialState.FAIL,))
    assert tune.suggest(cut, recipe_of().augmentation).mosaic == trained.done[3][0].augmentation.mosaic
    assert len({config.augmentation.mosaic for config, _ in trained.done}) == 6
    assert len(tune.finished(run(tmp_path, 6))) == len(trained.done) == 6  # reached: nothing is trained


def test_the_search_gets_better(trained: Trainings, tmp_path: Path):
    study = run(tmp_path, 25)
    assert study.best_value > tune.finished(study)[0].value + 0.02


def test_a_trial_is_the_mean_of_the_held_out_folds(trained: Trainings, tmp_path: Path):
    study = run(tmp_path, 1, held_out=(0, 2))
    assert [fold for _, fold in trained.done] == [0, 2]
    assert tune.finished(study)[0].value == pytest.approx(0.8 + 0.045 - 0.01)


def test_a_study_of_other_parameters_or_in_use_is_refused(trained: Trainings, tmp_path: Path):
    config = recipe_of()
    run(tmp_path, 1, config)
    run(tmp_path, 1, recipe_of(mosaic=0.4))  # the augmentation is what is searched
    longer = replace(config, training=config.training.model_copy(update={"steps": 99}))
    with pytest.raises(tune.StudyError, match="a study of other chips, labels or parameters"):
        run(tmp_path, 2, longer)
    busy = pytest.raises(FolderBusyError, match=r"another search works on .*study\.journal: process \d+ on ")
    with hold(tmp_path / "study.journal.busy", ""), busy:
        run(tmp_path, 2, config)


def test_the_command_prints_the_best_augmentation_as_yaml(
    trained: Trainings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("cloudcover.data.store.ChipStore", ChipStore)
    tables.MANIFEST.write(MANIFEST, tmp_path / "data/labels/manifest.csv")
    tables.FOLDS.write(FOLDS, tmp_path / "data/folds.csv")
    (tmp_path / "params.yaml").write_text("training: {steps: 6}\naugmentation: {hflip: 0.1}\n")
    arguments = ["--trials", "3", "--params", "params.yaml", "--data", "data", "--study", "study.journal"]
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["tune", *arguments], prog_name="cloudcover")
    assert result.exit_code == 0, result.output
    assert "3 trials of 3 steps in study.journal" in result.output
    assert {config.training.steps for config, _ in trained.done} == {3}
    best = max((config.augmentation for config, _ in trained.done), key=lambda a: 0.001 * a.rotation - 0.3 * a.mosaic)
    printed = yaml.safe_load(result.output[result.output.index("augmentation:") :])
    assert validate(printed).augmentation == best


def test_a_search_does_not_write_into_a_file_that_is_no_study(tmp_path):
    (tmp_path / "study.journal").write_text("mine")
    with pytest.raises(tune.StudyError, match="is not a study"):
        run(tmp_path, 1)
    assert (tmp_path / "study.journal").read_text() == "mine"
