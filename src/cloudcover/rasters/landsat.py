"""Landsat Collection 2, Level 1 and 2: GeoTIFFs at 30 m with a metadata file `*_MTL.txt`, `.json` or `.xml`.

USGS, Landsat 8-9 Collection 2 Level 2 Science Product Guide (LSDS-1619) and Level 1 Data Format Control Book
(LSDS-1822): reflectance = REFLECTANCE_MULT x stored + REFLECTANCE_ADD; that of Level 1 is also divided by the sine of
the sun's elevation. A stored 0 is fill.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from cloudcover.data.chips import ChipError
from cloudcover.data.values import Stored
from cloudcover.rasters.documents import number, parse_json, parse_xml, read_document
from cloudcover.rasters.layers import Layer, Plan, Request, existing, local, plain_band

FORMS = ("txt", "json", "xml")
"""Suffixes of the metadata file, which has the same content in each form."""
METADATA = re.compile(rf"(?P<product>.+)_MTL\.(?:{'|'.join(FORMS)})", re.IGNORECASE)
FILE = re.compile(r"(?P<product>L[COTEM]0[4-9]_L[12]\w\w_\w+?)(?:_S[RT])?_B\d+\.TIFF?", re.IGNORECASE)
SCENE = re.compile(r"(?P<product>L[COTEM][1-8]\d{13}[A-Z]{3}\d\d)_B\d+\.TIFF?", re.IGNORECASE)
"""Files from before the collections (2017), which must not pass for bands of Sentinel-2."""
OLI = {"B01": 1, "B02": 2, "B03": 3, "B04": 4, "B08": 5, "B8A": 5, "B10": 9, "B11": 6, "B12": 7}
TM = {"B02": 1, "B03": 2, "B04": 3, "B08": 4, "B8A": 4, "B11": 5, "B12": 7}
"""Band numbers of the sensors by the corresponding Sentinel-2 bands (Landsat 8 and 9; 4 to 7)."""
COLLECTION_2 = ("LC0", "LO0", "LT0", "LE0", "LM0")
"""Beginnings of product names since the collections."""
MSS = "is of the sensor MSS, whose bands do not correspond to those of Sentinel-2: it has no blue"

Groups = Mapping[str, Mapping[str, str]]


def parts(folder: Path, names: Sequence[str], request: Request) -> dict[str, str]:
    """List the products of a folder by their metadata files and their GeoTIFFs."""
    found: dict[str, str] = {}
    for pattern in (METADATA, FILE, SCENE):
        for product in (match["product"] for name in names if (match := pattern.fullmatch(name))):
            found.setdefault(product.upper(), product)
    return {product: product for product in sorted(found.values())}


def plan(place: str, part: str, request: Request) -> Plan:
    """Find the file and the scale of each band.

    Raises:
        ChipError: The metadata are incomplete or of another collection, or the sensor has no such band.
    """
    folder = Path(place)
    metadata = next((path for end in FORMS if (path := existing(folder, f"{part}_MTL.{end}")).exists()), None)
    if metadata is None:
        return _by_tags(folder, part, request)
    groups = read_groups(metadata)
    contents = _group(groups, "PRODUCT_CONTENTS", metadata.name)
    level = contents.get("PROCESSING_LEVEL", "")
    if level[:2] not in ("L1", "L2") or contents.get("COLLECTION_NUMBER", "").lstrip("0") != "2":
        raise ChipError(
            metadata.name,
            f"is of collection {contents.get('COLLECTION_NUMBER')} and level {level or None}, "
            "expected Collection 2, Level 1 or 2",
        )
    attributes = _group(groups, "IMAGE_ATTRIBUTES", metadata.name)
    if attributes.get("SENSOR_ID") == "MSS":
        raise ChipError(metadata.name, MSS)
    spacecraft = attributes.get("SPACECRAFT_ID", "")
    layers = tuple(_layer(folder, metadata.name, groups, _number(spacecraft, band), band) for band in request.bands)
    return Plan(layers, f"{spacecraft} {level} by {metadata.name}", doubtful=False)


def read_groups(path: Path) -> Groups:
    """Read keys and values of a metadata file by group; raise `ChipError` if it is invalid."""
    content = read_document(path)
    if path.suffix.lower() == ".json":
        root = parse_json(content, path.name).get("LANDSAT_METADATA_FILE")
        groups = root if isinstance(root, dict) else {}
        return {name: {k: str(v) for k, v in keys.items()} for name, keys in groups.items() if isinstance(keys, dict)}
    if path.suffix.lower() == ".xml":
        return {group.tag: {key.tag: key.text or "" for key in group} for group in parse_xml(content, path.name)}
    found: dict[str, dict[str, str]] = {}
    inside = ""
    for line in content.decode("utf-8", "replace").splitlines():
        key, _, value = (text.strip() for text in line.partition("="))
        if key == "GROUP":
            inside = value
        elif value and key != "END_GROUP":
            found.setdefault(inside, {})[key] = value.strip('"')
    return found


def _by_tags(folder: Path, part: str, request: Request) -> Plan:
    """Plan the reading of files whose own tags must declare the meaning of their values."""
    if not part.upper().startswith(COLLECTION_2):
        raise ChipError(part, "is from before Landsat's Collection 2: download the product of Collection 2")
    if part.upper().startswith("LM"):
        raise ChipError(part, MSS)
    surface = "_SR" if "_L2" in part.upper() else ""
    layers = []
    for band in request.bands:
        name = f"{part}{surface}_B{_number(f'LANDSAT_{part[3]}', band)}.TIF"
        layers.append(local(band, existing(folder, name), scaled=True))
    return Plan(tuple(layers), "Landsat by the tags of its files", doubtful=False)


def _layer(folder: Path, metadata: str, groups: Groups, index: int, band: str) -> Layer:
    contents = groups["PRODUCT_CONTENTS"]
    name = contents.get(f"FILE_NAME_BAND_{index}", "")
    if not name or Path(name).name != name:
        raise ChipError(band, f"{metadata} has FILE_NAME_BAND_{index} = {name or None}, expected the name of a file")
    path = existing(folder, name)
    if contents["PROCESSING_LEVEL"].startswith("L2"):
        return local(band, path, says=_says(groups, "LEVEL2_SURFACE_REFLECTANCE_PARAMETERS", index, metadata))
    attributes = _group(groups, "IMAGE_ATTRIBUTES", metadata)
    elevation = number(attributes.get("SUN_ELEVATION"), "SUN_ELEVATION", metadata)
    if not 0 < elevation <= 90:
        raise ChipError(metadata, f"SUN_ELEVATION is {elevation:g}, expected more than 0 degrees and at most 90")
    says = _says(groups, "LEVEL1_RADIOMETRIC_RESCALING", index, metadata, math.sin(math.radians(elevation)))
    return local(band, path, says=says)


def _says(groups: Groups, group: str, index: int, metadata: str, divisor: float = 1.0) -> Stored:
    keys = _group(groups, group, metadata)
    scale, offset = (
        number(keys.get(key), key, metadata) for key in (f"REFLECTANCE_{what}_BAND_{index}" for what in ("MULT", "ADD"))
    )
    return Stored(scale=scale / divisor, offset=offset / divisor, nodata=0)


def _group(groups: Groups, name: str, metadata: str) -> Mapping[str, str]:
    if name not in groups:
        raise ChipError(metadata, f"lacks the group {name}: truncated, or not of Landsat Collection 2")
    return groups[name]


def _number(spacecraft: str, band: str) -> int:
    """Return the number of a sensor's band; raise `ChipError` if none corresponds to the requested one."""
    numbers = OLI if spacecraft in ("LANDSAT_8", "LANDSAT_9") else TM
    if (key := plain_band(band)) not in numbers:
        raise ChipError(band, f"{spacecraft} has no such band: those for {', '.join(numbers)} are there")
    return numbers[key]
