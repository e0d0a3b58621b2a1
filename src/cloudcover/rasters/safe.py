"""Sentinel-2 products, Level-1C and Level-2A: a `.SAFE` folder or its zip, in the format since December 2016.

ESA, Sentinel-2 Products Specification Document (PSD): reflectance = (stored + offset) / quantification value, and 0
means no data. The offset is in the metadata since processing baseline 04.00 (January 2022); before, there was none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from xml.etree import ElementTree

from cloudcover.data.chips import ChipError
from cloudcover.data.values import Stored
from cloudcover.rasters.documents import number, parse_xml
from cloudcover.rasters.layers import JPEG2000, Layer, Plan, Request, plain_band
from cloudcover.rasters.trees import FolderTree, Tree, ZipTree

BAND_IDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
"""Bands by their `band_id`."""
SHIFTED_SINCE = 4.0
"""First processing baseline with an offset."""
IMAGE = re.compile(r"_(?P<band>B\w\w)(_(?P<metres>\d\d)m)?$")
"""End of an image's name; Level-2A has several sizes of pixels."""
OLD_NAME = "_PRD_MSIL"
"""Part of the name of a product in the format before December 2016."""
OLD = (
    "products from before December 2016 are not read as a whole; name the folder IMG_DATA of a tile in GRANULE, "
    "whose images are reflectance x 10,000"
)
EXPECTED = "expected a Level-1C or 2A product"
ZIP = re.compile(r"S2._MSIL(1C|2A)_.+\.zip", re.IGNORECASE)


class Level(NamedTuple):
    """The names used by a processing level.

    Attributes:
        name: Name for the log.
        root: Root element of the metadata.
        quantification: Element of the quantification value; Level-2A had another one before October 2018 (PSD 14.2).
        offset: Element of a band's offset.
    """

    name: str
    root: str
    quantification: tuple[str, ...]
    offset: str


LEVELS = {
    "MTD_MSIL1C.xml": Level("L1C", "Level-1C_User_Product", ("QUANTIFICATION_VALUE",), "RADIO_ADD_OFFSET"),
    "MTD_MSIL2A.xml": Level(
        "L2A",
        "Level-2A_User_Product",
        ("BOA_QUANTIFICATION_VALUE", "L2A_BOA_QUANTIFICATION_VALUE"),
        "BOA_ADD_OFFSET",
    ),
}
"""Levels by the name of their metadata file."""
IMAGE_FILES = ("IMAGE_FILE", "IMAGE_FILE_2A")
"""Elements that name an image; the second one is that of Level-2A before October 2018."""


def parts(folder: Path, names: Sequence[str], request: Request) -> dict[str, str]:
    """Return the folder itself if it is a product, and zips of products in it."""
    found = {name: product_name(name) for name in sorted(names) if ZIP.fullmatch(name)}
    if any(name in LEVELS for name in names) or (_is_safe(folder) and not any(map(_is_safe, folder.iterdir()))):
        found[""] = product_name(folder.name)
    return found


def _is_safe(path: Path) -> bool:
    """Return whether a path is named like a product's folder; some programs unpack it into another one of its name."""
    return path.suffix.upper() == ".SAFE" and path.is_dir()


def product_name(name: str) -> str:
    """Return the name of a product without `.SAFE` and `.zip`."""
    return re.sub(r"(\.SAFE)?(\.zip)?$", "", name, flags=re.IGNORECASE)


def plan(place: str, part: str, request: Request) -> Plan:
    """Find the image and the offset of each band in a product's metadata.

    Raises:
        ChipError: It is not a product, its metadata are incomplete, a band has no image, or members of the zip
            lead out of it.
    """
    path = Path(place, part)
    tree: Tree = FolderTree(path) if path.is_dir() else ZipTree(path)
    name = next((name for name in LEVELS if tree.holds(name)), None)
    if name is None:
        advice = OLD if OLD_NAME in path.name else EXPECTED
        raise ChipError(path.name, f"{path} holds neither {' nor '.join(LEVELS)}: {advice}")
    level, root = LEVELS[name], parse_xml(tree.read(name), name)
    if root.tag.rpartition("}")[2] != level.root:
        raise ChipError(name, f"is of {root.tag.rpartition('}')[2]}, expected {level.root}")
    images = _images(root, name)
    baseline = number(root.findtext(".//PROCESSING_BASELINE"), "PROCESSING_BASELINE", name)
    values = [value for key in level.quantification if (value := root.findtext(f".//{key}")) is not None]
    quantification = number(values[0] if values else None, level.quantification[0], name)
    if quantification <= 0:
        raise ChipError(name, f"{level.quantification[0]} is {quantification:g}, expected more than 0")
    layers, offsets = [], []
    for band in request.bands:
        if (key := plain_band(band)) not in images:
            raise ChipError(band, f"{name} lists no image of it: those of {', '.join(sorted(images))} are there")
        offsets.append(_offset(root, level, key, baseline, request.offset, name))
        says = Stored(scale=1 / quantification, offset=offsets[-1] / quantification, nodata=0)
        layers.append(Layer(band, tree.uri(images[key]), tree.path(images[key]), says, driver=JPEG2000))
    moved = ", ".join(f"{offset:+g}" for offset in dict.fromkeys(offsets))
    says_so = f"Sentinel-2 {level.name}, baseline {baseline:05.2f}, quantification {quantification:g}, offset {moved}"
    return Plan(tuple(layers), says_so, doubtful=False)


def _images(root: ElementTree.Element, name: str) -> dict[str, str]:
    """Return images by band, as paths inside the product; of several sizes (Level-2A) that of the smallest pixels."""
    found: dict[str, tuple[int, str]] = {}
    for element in (element for key in IMAGE_FILES for element in root.iter(key)):
        path = (element.text or "").strip()
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise ChipError(name, f"IMAGE_FILE is {path}, which leads out of the product")
        if match := IMAGE.search(path):
            band, metres = match["band"], int(match["metres"] or 0)
            if band in found and found[band][0] == metres:
                raise ChipError(name, f"lists several images of {band}: products of several tiles are not read")
            if band not in found or metres < found[band][0]:
                found[band] = metres, f"{path}.jp2"
    return {band: path for band, (_, path) in found.items()}


def _offset(root: ElementTree.Element, level: Level, band: str, baseline: float, given: int | None, name: str) -> float:
    """Return the offset of a band from the metadata or, if they lack it, from the user."""
    elements = root.findall(f".//{level.offset}")
    for element in elements:
        if element.get("band_id") == str(BAND_IDS.index(band)):
            return number(element.text, level.offset, name)
    if not elements and baseline < SHIFTED_SINCE:
        return 0.0
    if given is not None:
        return -float(given)
    raise ChipError(
        name,
        f"has the baseline {baseline:05.2f} but no {level.offset} for {band}: download the metadata again, or state "
        "the offset with `--offset 1000`, or `--offset 0` if the values have none",
    )
