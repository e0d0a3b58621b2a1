"""Reading metadata of a bounded size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from cloudcover.data.chips import ChipError

LARGEST_DOCUMENT = 1 << 25
"""Bytes of a metadata file that are read at most; a Sentinel-2 product's have less than 100,000."""


def read_document(path: Path) -> bytes:
    """Read a metadata file.

    Raises:
        ChipError: it is missing, cannot be read, or has more than `LARGEST_DOCUMENT` bytes.
    """
    try:
        with path.open("rb") as file:
            return checked_size(file.read(LARGEST_DOCUMENT + 1), path.name)
    except FileNotFoundError:
        raise ChipError(path.name, f"{path} is missing") from None
    except OSError as error:
        raise ChipError(path.name, f"{path} cannot be read: {error.strerror or error}") from None


def checked_size(content: bytes, name: str) -> bytes:
    """Pass content on that is no longer than `LARGEST_DOCUMENT`; raises `ChipError`."""
    if len(content) > LARGEST_DOCUMENT:
        raise ChipError(name, f"has more than {LARGEST_DOCUMENT:,} bytes")
    return content


def parse_xml(content: bytes, name: str) -> ElementTree.Element:
    """Parse XML; external entities are not followed; raises `ChipError`."""
    try:
        return ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise ChipError(name, f"is no XML ({error}): truncated?") from None


def parse_json(content: bytes, name: str) -> dict[str, Any]:
    """Parse a JSON object; raises `ChipError`."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ChipError(name, f"is no JSON ({error}): truncated?") from None
    if not isinstance(value, dict):
        raise ChipError(name, f"is a JSON {type(value).__name__}, expected an object")
    return value


def number(text: object, key: str, name: str) -> float:
    """Return a number of a metadata file; raises `ChipError` if it is none."""
    try:
        return float(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ChipError(name, f"{key} is {text!r}, expected a number") from None
