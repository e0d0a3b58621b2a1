"""Files of a product, in a folder or in a zip."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path, PurePosixPath
from typing import Protocol
from zipfile import BadZipFile, ZipFile

from cloudcover.data.chips import ChipError
from cloudcover.rasters.documents import LARGEST_DOCUMENT, checked_size, read_document

ZIP_ERRORS = (BadZipFile, OSError, RuntimeError, ValueError, EOFError, struct.error, zlib.error)
"""Errors of `zipfile` for damaged, encrypted (`RuntimeError`) and unsupported (`NotImplementedError`) zips."""


class Tree(Protocol):
    """The files of a product by their paths inside it."""

    def holds(self, name: str) -> bool:
        """Return whether there is such a file."""
        ...

    def read(self, name: str) -> bytes:
        """Read a metadata file; raise `ChipError` if that fails."""
        ...

    def uri(self, name: str) -> str:
        """Return GDAL's name of a file."""
        ...

    def path(self, name: str) -> Path:
        """Return the local file that contains it."""
        ...


class FolderTree:
    """The files of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def holds(self, name: str) -> bool:
        return (self._folder / name).exists()

    def read(self, name: str) -> bytes:
        return read_document(self._folder / name)

    def uri(self, name: str) -> str:
        return str(self._folder / name)

    def path(self, name: str) -> Path:
        return self._folder / name


class ZipTree:
    """The files of the single product in a zip, which GDAL reads inside the zip.

    Args:
        path: Path of the zip.

    Raises:
        ChipError: The zip is unreadable, contains no product or several, or a member's name leads out of it.
    """

    def __init__(self, path: Path) -> None:
        self._zip = path
        try:
            with ZipFile(path) as archive:
                names = archive.namelist()
        except ZIP_ERRORS as error:
            raise ChipError(path.name, f"{path} cannot be read ({error}): truncated or not a zip") from None
        if outside := next((name for name in names if _leads_out(name)), None):
            raise ChipError(path.name, f"{path} holds {outside!r}, which leads out of it: do not unpack it")
        roots = {str(PurePosixPath(name).parent) for name in names if PurePosixPath(name).match("MTD_MSIL*.xml")}
        if len(roots) != 1:
            raise ChipError(path.name, f"{path} holds {len(roots)} Sentinel-2 products, expected 1")
        self._root = PurePosixPath(roots.pop())
        self._names = set(names)

    def holds(self, name: str) -> bool:
        return str(self._root / name) in self._names

    def read(self, name: str) -> bytes:
        try:
            with ZipFile(self._zip) as archive, archive.open(str(self._root / name)) as file:
                content = file.read(LARGEST_DOCUMENT + 1)
        except ZIP_ERRORS as error:
            raise ChipError(name, f"cannot be read from {self._zip} ({error})") from None
        return checked_size(content, name)

    def uri(self, name: str) -> str:
        path = str(self._zip.resolve())
        # Braces let GDAL find the end of a name without `.zip`, but must be balanced.
        return f"/vsizip/{path if '{' in path or '}' in path else f'{{{path}}}'}/{self._root / name}"

    def path(self, name: str) -> Path:
        return self._zip


def _leads_out(name: str) -> bool:
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or ":" in name
