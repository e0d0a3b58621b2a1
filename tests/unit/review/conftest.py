"""What tests of the review share."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.review_set import make_set


@pytest.fixture(scope="session")
def reviewed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the small set to review; only to be read."""
    folder = tmp_path_factory.mktemp("reviewed")
    make_set(folder)
    return folder
