"""Learning curves while a training runs, read back by the tools that show them."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cloudcover.data.store import ChipStore
from cloudcover.train import run
from cloudcover.train.logger import LoggerError, live_curves
from cloudcover.train.split import Split
from helpers.training import dying_after, fit, recipe_of

ROWS = [{"epoch": float(k), "train_loss": 1 / (k + 1), "validation_jaccard": 0.1 * k} for k in range(3)]


def tensorboard(folder: Path) -> dict[str, list[float]]:
    """Read the scalars of a folder of event files, by name and in the order of their steps."""
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    read = events.EventAccumulator(str(folder)).Reload()
    assert all(e.step == k for name in read.Tags()["scalars"] for k, e in enumerate(read.Scalars(name)))
    return {name: [event.value for event in read.Scalars(name)] for name in read.Tags()["scalars"]}


def dvclive(folder: Path) -> dict[str, list[float]]:
    """Read the TSV files that DVCLive has written."""
    pytest.importorskip("dvclive")
    curves = {}
    for path in sorted((folder / "plots/metrics").glob("*.tsv")):
        with path.open() as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        assert [int(row["step"]) for row in rows] == list(range(len(rows)))
        curves[path.stem] = [float(row[path.stem]) for row in rows]
    return curves


READERS = {"tensorboard": tensorboard, "dvclive": dvclive}


@pytest.mark.parametrize("logger", READERS)
def test_each_epoch_can_be_read_while_the_training_goes_on(tmp_path: Path, logger: str) -> None:
    pytest.importorskip(logger)
    with live_curves(logger, tmp_path / "curves", []) as record:
        for number, row in enumerate(ROWS, 1):
            record(row)
            curves = READERS[logger](tmp_path / "curves")
            assert set(curves) == {"train_loss", "validation_jaccard"}
            np.testing.assert_allclose(curves["train_loss"], [1 / (k + 1) for k in range(number)], rtol=1e-6)
    if logger == "dvclive":
        assert json.loads((tmp_path / "curves/metrics.json").read_text())["validation_jaccard"] == pytest.approx(0.2)


@pytest.mark.parametrize("logger", READERS)
def test_a_resumed_training_has_one_curve_and_an_earlier_one_leaves_none(tmp_path: Path, logger: str) -> None:
    pytest.importorskip(logger)
    with live_curves(logger, tmp_path, []) as record:
        for row in ROWS:
            record({**row, "train_loss": 9.0})
    with live_curves(logger, tmp_path, ROWS[:2]) as record:
        record(ROWS[2])
    np.testing.assert_allclose(READERS[logger](tmp_path)["train_loss"], [1, 1 / 2, 1 / 3], rtol=1e-6)


def test_no_logger_writes_nothing(tmp_path: Path) -> None:
    with live_curves("none", tmp_path / "curves", []) as record:
        record(ROWS[0])
    assert list(tmp_path.iterdir()) == []


def test_a_training_that_was_cut_off_shows_its_whole_curve(
    learnable_set: tuple[ChipStore, Split], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    config = recipe_of(compute={"logger": "tensorboard"})
    with monkeypatch.context() as context:
        context.setattr(run, "save_state", dying_after(2))
        with pytest.raises(KeyboardInterrupt):
            fit(learnable_set, tmp_path / "run", config)
    curves = tmp_path / "run/curves/round1/fold0"
    assert len(tensorboard(curves)["train_loss"]) == 2
    fit(learnable_set, tmp_path / "run", config)
    history = pd.read_csv(tmp_path / "run/model/history.csv")
    for name, values in tensorboard(curves).items():
        np.testing.assert_allclose(values, history[name], rtol=1e-5)


@pytest.mark.parametrize("logger", READERS)
def test_a_library_that_is_missing_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logger: str
) -> None:
    module = {"tensorboard": "torch.utils.tensorboard", "dvclive": "dvclive.live"}[logger]
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(LoggerError, match=rf"cloudcover\[{logger}\]"), live_curves(logger, tmp_path, []):
        pass
