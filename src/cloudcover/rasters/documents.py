"""Reading of metadata files of limited size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from cloudcover.data.chips import ChipError

LARGEST_DOCUMENT = 1 << 25
"""Maximum size of a metadata file [bytes]; those of Sentinel-2 products have less than 100,000."""


def read_document(path: Path) -> bytes:
    """Read a metadata file.

    Raises:
        ChipError: The file is missing, unreadable, or larger than `LARGEST_DOCUMENT`.
    """
    try:
        with path.open("rb") as file:
            return checked_size(file.read(LARGEST_DOCUMENT + 1), path.name)
    except FileNotFoundError:
        raise ChipError(path.name, f"{path} is missing") from None
    except OSError as error:
        raise ChipError(path.name, f"{path} cannot be read: {error.strerror or error}") from None


def checked_size(content: bytes, name: str) -> bytes:
    """Return content that is not larger than `LARGEST_DOCUMENT`; otherwise raise `ChipError`."""
    if len(content) > LARGEST_DOCUMENT:
        raise ChipError(name, f"has more than {LARGEST_DOCUMENT:,} bytes")
    return content


def parse_xml(content: bytes, name: str) -> ElementTree.Element:
    """Parse XML without external entities; raise `ChipError` if it is invalid."""
    try:
        return ElementTree.fromstring(content)
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # the others: an unknown encoding
        raise ChipError(name, f"is not XML ({error}): truncated?") from None


def parse_json(content: bytes, name: str) -> dict[str, Any]:
    """Parse a JSON object; raise `ChipError` if it is invalid."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ChipError(name, f"is not JSON ({error}): truncated?") from None
    if not isinstance(value, dict):
        raise ChipError(name, f"is a JSON {type(value).__name__}, expected an object")
    return value


def number(text: object, key: str, name: str) -> float:
    """Parse a number in a metadata file; raise `ChipError` if it is not a number."""
    try:
        return float(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ChipError(name, f"{key} is {text!r}, expected a number") from None
