"""What tests of labels share."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudcover.data.store import ChipStore
from cloudcover.labels.evidence import gather_evidence
from helpers.labelled import Gathered, folds_of, small_set


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[ChipStore, Path]:
    """The store of the small set, and its folder; only to be read."""
    folder = tmp_path_factory.mktemp("small")
    return small_set(folder), folder


@pytest.fixture(scope="session")
def gathered(small: tuple[ChipStore, Path]) -> Gathered:
    """The evidence about the small set."""
    store, _ = small
    return gather_evidence(store, folds_of(store), seed=0, threads=2)
