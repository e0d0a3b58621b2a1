"""A disk that is really full."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import rasterio

PAGE = 4096
"""What a small file occupies on a tmpfs [bytes]."""


class Disk:
    """A mounted file system of 4 MiB."""

    def __init__(self, path):
        self.path = path
        self._filler = path / "filler"

    def leave(self, pages):
        """Fill the disk up to some free pages."""
        with self._filler.open("wb", buffering=0) as filler:
            try:
                while filler.write(bytes(PAGE)):
                    pass
            except OSError:
                filler.truncate(filler.tell() // PAGE * PAGE - pages * PAGE)

    def files(self):
        """The bytes of every file but the filler, hidden ones included."""
        found = (path for path in self.path.rglob("*") if path.is_file() and path != self._filler)
        return {path.relative_to(self.path).as_posix(): path.read_bytes() for path in found}

    def assert_whole(self):
        """No temporary and no empty file is left, and every image can be read."""
        for name, content in self.files().items():
            assert ".part" not in name
            assert content or name.endswith(".cloudcover"), name  # an empty record lists nothing
            if name.endswith(".tif"):
                with rasterio.open(self.path / name) as image:
                    image.read()


@contextmanager
def mounted(folder: Path, mebibytes: int) -> Iterator[None]:
    """Mount a small disk; the test is skipped where that is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", folder]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"needs the right to mount a tmpfs: {done.stderr.strip()}")
    yield
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def disk(tmp_path):
    with mounted(tmp_path / "disk", 4):
        yield Disk(tmp_path / "disk")
