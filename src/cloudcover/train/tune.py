"""The search for the strength of augmentation: short trainings, by Optuna, in a study that resumes after a stop."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from cloudcover.config.augmentation import AugmentationParams
from cloudcover.config.training import TrainingConfig
from cloudcover.data.store import ChipStore
from cloudcover.runtime.files import derive_seed, fingerprint
from cloudcover.runtime.locks import hold
from cloudcover.train.learner import NotFiniteError
from cloudcover.train.run import train, training_fingerprint
from cloudcover.train.split import Split, select

log = logging.getLogger(__name__)

STUDY = "augmentation"
FIGURE = "jaccard"
"""Validation figure of a trial, unless `training.monitor` names another."""
RANGES: dict[str, tuple[float, float]] = {
    "d4": (0.0, 1.0),
    "affine": (0.0, 1.0),
    "rotation": (0.0, 90.0),
    "zoom": (1.0, 2.0),
    "brightness_contrast": (0.0, 1.0),
    "brightness": (0.0, 0.5),
    "contrast": (0.0, 0.5),
    "mosaic": (0.0, 0.5),
    "cutmix": (0.0, 0.5),
    "chessmix": (0.0, 0.5),
    "cloud_paste": (0.0, 0.5),
    "multi_resolution": (0.0, 1.0),
}
"""Keys of `augmentation` that are searched, with their bounds; all others are unchanged."""


class StudyError(ValueError):
    """A study that cannot be resumed: it belongs to other chips or parameters, or the file is not a study."""


def tune(
    config: TrainingConfig,
    store: ChipStore,
    manifest: pd.DataFrame,
    folds: pd.DataFrame,
    held_out: Sequence[int],
    trials: int,
    journal: Path,
    work: Path,
) -> optuna.Study:
    """Search for the augmentation with the best validation figure of models trained on the clean labels.

    The first trial is the configured augmentation, for comparison. The figure of the best trial is optimistic, because
    the trial was chosen by it. The workflow's evaluation on other chips is decisive.

    Args:
        config: Parameters; only the augmentation varies. `config.training.steps` is the length of a trial.
        store: The packed chips.
        manifest: `tables.MANIFEST`.
        folds: `tables.FOLDS`.
        held_out: Folds to validate on; the value of a trial is the mean over them.
        trials: Total number of finished trials, those of earlier runs included.
        journal: Optuna's file of the study; an interrupted trial resumes where its training stopped.
        work: Folder for training states and models, which are removed.

    Raises:
        StudyError: The study belongs to other chips or parameters, or `journal` is not a study.
        FolderBusyError: Another search uses the study.
        SplitError: See `train.select`.
        NotFiniteError: The loss of a trial is NaN; the next start continues with another trial.
    """
    selections = {fold: select(manifest, folds, fold) for fold in held_out}
    journal.parent.mkdir(parents=True, exist_ok=True)
    work.mkdir(parents=True, exist_ok=True)
    lock = journal.with_name(f"{journal.name}.busy")  # FILE.lock is Optuna's own lock for a single write
    with hold(lock, f"another search works on {journal}"):
        study = _open(journal, _identity(config, store, selections), config.seed)
        _enqueue(study, config.augmentation)

        def value(trial: Trial) -> float:
            changed = replace(config, augmentation=suggest(trial, config.augmentation))
            values = []
            for fold, split in selections.items():
                with tempfile.TemporaryDirectory(prefix=f"trial{trial.number}-fold{fold}-", dir=work) as folder:
                    output = Path(folder, "model")
                    card = train(changed, store, split, output, work / "train", run="tune", fold=fold)
                values.append(card.metrics[f"validation_{changed.training.monitor or FIGURE}"])
            return float(np.mean(values))

        while len(finished(study)) < trials:
            # `optimize` would mark a trial interrupted by Ctrl-C as failed; here it stays open and is resumed.
            trial = study.ask()
            try:
                figure = value(trial)
                study.tell(trial, figure)
                log.info("trial %d of %d: %.4f", len(finished(study)), trials, figure)
            except NotFiniteError:
                study.tell(trial, state=TrialState.FAIL)
                raise
        return study


def suggest(trial: Trial | FrozenTrial, start: AugmentationParams) -> AugmentationParams:
    """Return the augmentation of a trial: `start` with the trial's values of `RANGES`."""
    values = {name: trial.suggest_float(name, low, high) for name, (low, high) in RANGES.items()}
    return start.model_copy(update=values)


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """List the trials that have a value, in order; the first one is the augmentation of the start."""
    return study.get_trials(states=(TrialState.COMPLETE,))


def _identity(config: TrainingConfig, store: ChipStore, selections: dict[int, Split]) -> str:
    """Compute the fingerprint of everything but the augmentation, from that of the trainings."""
    plain = replace(config, augmentation=AugmentationParams())  # type: ignore[call-arg]
    return fingerprint([training_fingerprint(plain, store, split, None) for split in selections.values()])


def _open(journal: Path, identity: str, seed: int) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if journal.exists() and (text := journal.read_bytes()) and not text.startswith(b'{"op_code":'):
        raise StudyError(f"{journal} is not a study, and Optuna would write to it: give another file (--study)")
    study = optuna.create_study(
        study_name=STUDY,
        storage=JournalStorage(JournalFileBackend(str(journal))),
        direction="maximize",
        load_if_exists=True,
    )
    if study.user_attrs.setdefault("identity", identity) != identity:
        raise StudyError(
            f"{journal} is a study of other chips, labels or parameters: remove it, or give another file (--study)"
        )
    study.set_user_attr("identity", identity)
    # The sampler's state is not in the journal; a different seed prevents repeated draws after a restart.
    study.sampler = optuna.samplers.TPESampler(seed=derive_seed(seed, "tune", len(study.trials)))
    return study


def _enqueue(study: optuna.Study, start: AugmentationParams) -> None:
    """Enqueue the start's own augmentation first, and repeat trials that were interrupted."""
    if not study.trials:
        study.enqueue_trial({name: getattr(start, name) for name in RANGES})
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        log.info("trial %d was interrupted and is resumed", trial.number)
        study.enqueue_trial(trial.params)
        study.tell(trial.number, state=TrialState.FAIL)
