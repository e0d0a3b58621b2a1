"""Restrictions on VRTs: only mosaics and stacks of local TIFF and JPEG 2000 files are read.

A VRT can refer to any file or address, and contain code. A downloaded VRT must not make the program use those.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import rasterio
from rasterio.errors import RasterioError

from cloudcover.data.chips import ChipError
from cloudcover.rasters.documents import parse_xml, read_document
from cloudcover.rasters.layers import driver_of

ELEMENTS = {
    *("vrtdataset", "srs", "geotransform", "metadata", "mdi", "vrtrasterband", "maskband", "description"),
    *("colorinterp", "nodatavalue", "hidenodatavalue", "scale", "offset", "unittype", "simplesource", "complexsource"),
    *("sourcefilename", "sourceband", "sourceproperties", "srcrect", "dstrect", "nodata", "scaleoffset", "scaleratio"),
    "usemaskband",
}
"""Elements of stacks and mosaics written by `gdalbuildvrt` and `gdal_translate`, in lower case, because GDAL ignores
case."""
ATTRIBUTES = {
    *("rasterxsize", "rasterysize", "datatype", "band", "blockxsize", "blockysize", "relativetovrt", "shared", "xoff"),
    *("yoff", "xsize", "ysize", "key", "domain", "dataaxistosrsaxismapping", "resampling", "coordinateepoch"),
}
REMEDY = "write it as a GeoTIFF: `gdal_translate IN OUT`"


def check_vrt(path: Path) -> None:
    """Refuse a VRT that does more than combine bands or tiles of local files (`ChipError`)."""
    content = read_document(path)
    if b"<!" in content.replace(b"<!--", b""):  # GDAL's own parser may interpret the rest of XML differently
        raise ChipError(path.name, f"has XML declarations that are not supported: {REMEDY}")
    for element in parse_xml(content, path.name).iter():
        others = [name for name in (element.tag, *element.attrib) if name.lower() not in ELEMENTS | ATTRIBUTES]
        if others:
            raise ChipError(path.name, f"does more than combine files ({others[0]}): {REMEDY}")
        if element.tag.lower() == "sourcefilename":
            _check_source(path, element)


def _check_source(vrt: Path, element: ElementTree.Element) -> None:
    text = (element.text or "").strip()
    source = vrt.parent / text if element.get("relativeToVRT") == "1" else Path(text)
    if not source.is_file():
        raise ChipError(vrt.name, f"takes pixels from {text!r}, which is not a local file: {REMEDY}")
    try:
        with rasterio.open(source, driver=driver_of(text)):
            return
    except RasterioError:
        raise ChipError(vrt.name, f"takes pixels from {text!r}, which is neither a TIFF nor a JPEG 2000") from None
