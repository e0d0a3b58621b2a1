"""What all tests share: no network but loopback, servers on it, and small sets, stores and models."""

from __future__ import annotations

import os
import runpy
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

import cloudcover  # noqa: F401  (first: it makes torchvision importable beside a CPU build of torch)
from helpers.layouts import make_layout
from helpers.paths import NOBODY, OFFLINE, SHARED, python_path

if TYPE_CHECKING:
    from cloudcover.data.store import ChipStore
    from cloudcover.train.split import Split

pytest_plugins = ("helpers.servers", "helpers.disks")

# Here, not in a fixture, because what a session's or a module's fixtures start is kept off the network as well.
runpy.run_path(str(OFFLINE / "sitecustomize.py"))
os.environ["PYTHONPATH"] = python_path(*filter(None, [os.environ.get("PYTHONPATH")]))
# GDAL, the object stores, git and browsers have sockets of their own: they get a proxy at which nobody listens.
os.environ.update({"http_proxy": NOBODY, "https_proxy": NOBODY, "no_proxy": "localhost,127.0.0.1,::1"})
for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "all_proxy"):
    os.environ.pop(name, None)


# How long an example takes says nothing on a machine that has other work.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

LONGEST = [
    "test_slurm.py", "test_workflow.py", "test_staleness.py", "test_random_moments.py", "test_review_browser.py",
    "test_train_faults.py", "test_train.py", "test_audit.py", "test_predict_export.py",
]  # fmt: skip
"""Files that start first, so that the other processes have work while they run; the cluster's jobs mostly wait."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sorts the longest files to the front."""
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.fixture(scope="session")
def real_chips() -> Path:
    """Folder of eight real chips, where it is at hand."""
    folder = SHARED / "real-chips"
    if not folder.exists():
        pytest.skip(f"the real chips are not at {folder}")
    return folder


@pytest.fixture(scope="session")
def learnable_set(tmp_path_factory: pytest.TempPathFactory) -> tuple[ChipStore, Split]:
    """Packed chips with clean labels, and those of them that the model of fold 0 learns from; only to be read."""
    from helpers.training import learnable

    return learnable(tmp_path_factory.mktemp("learnable"))


@pytest.fixture(scope="session")
def three_chips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three small chips with labels, one with a corner without data; only to be read."""
    from helpers.bundles import write_three_chips

    return write_three_chips(tmp_path_factory.mktemp("chips"))


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory, three_chips: Path) -> Path:
    """A bundle of random networks whose threshold fits the three chips; only to be read."""
    from helpers.bundles import random_bundle, read_chips

    return random_bundle(tmp_path_factory.mktemp("models"), read_chips(three_chips / "train_features"))


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes each set of `make_layout` once, with its manifest; only to be read."""
    from cloudcover.data.layout import write_file_table

    @cache
    def make(**options: int) -> Path:
        root = tmp_path_factory.mktemp("layout")
        make_layout(root, **options)
        write_file_table(root, "test")
        return root

    return make


@pytest.fixture
def layout(tmp_path: Path, originals: Callable[..., Path]) -> Callable[..., Path]:
    """Puts a set of the test's own below its folder, with its manifest: `layout(chips=12, wrong=3)`."""

    def make(name: str = "raw", **options: int) -> Path:
        return Path(shutil.copytree(originals(**options), tmp_path / name))

    return make
