"""Small images in the layouts and with the metadata of the agencies that publish them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_origin

from helpers.layouts import BANDS

TILE = "T32TQM_20200101T101010"
SIZE = 48
S2_BANDS = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12"]
SPECTRAL = ["B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12"]


def stored(seed: int, size: int = SIZE, low: int = 1, high: int = 9000) -> NDArray[np.uint16]:
    """Draw a band's values as a product stores them: some below 1000, and a corner without data (0)."""
    pixels = np.random.default_rng(seed).integers(low, high, (size, size)).astype(np.uint16)
    pixels[:5, :7] = 0
    pixels[5, :3] = (1, 999, 1001)
    return pixels


def write(path: Path, pixels: NDArray[np.generic], metres: float = 10, driver: str = "", **more: object) -> Path:
    """Writes one band or several (B x H x W) at an upper left corner of (600000, 5000040); the suffix gives the driver.

    `scale`, `offset`, `descriptions` and `mask` are set as the file's own.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # GDAL would remove Landsat's metadata with an older file
    bands = pixels[np.newaxis] if pixels.ndim == 2 else pixels
    profile = {"driver": driver or ("JP2OpenJPEG" if path.suffix == ".jp2" else "GTiff"), "crs": "EPSG:32632"}
    profile |= {"QUALITY": "100", "REVERSIBLE": "YES"} if profile["driver"] == "JP2OpenJPEG" else {}
    tags = {key: more.pop(key) for key in ("scale", "offset", "descriptions", "mask") if key in more}
    profile |= dict(zip(("count", "height", "width"), bands.shape, strict=True)) | {"dtype": bands.dtype}
    with rasterio.open(
        path, "w", **profile | {"transform": from_origin(6e5, 5_000_040, metres, metres)} | more
    ) as file:
        file.write(bands)
        if "scale" in tags or "offset" in tags:
            file.scales = [tags.get("scale", 1.0)] * len(bands)
            file.offsets = [tags.get("offset", 0.0)] * len(bands)
        if "descriptions" in tags:
            file.descriptions = tags["descriptions"]
        if "mask" in tags:
            file.write_mask(tags["mask"])
    return path


def mtd(level: str, baseline: str, images: list[str], offsets: dict[str, int] | None, quantification: int) -> str:
    """Return a product's metadata file (PSD 14, without parts that no reader uses); `offsets` by band, such as B02."""
    tag = "RADIO_ADD_OFFSET" if level == "1C" else "BOA_ADD_OFFSET"
    box = "Radiometric_Offset_List" if level == "1C" else "BOA_ADD_OFFSET_VALUES_LIST"
    listed = "\n".join(
        f'        <{tag} band_id="{S2_BANDS.index(band)}">{value}</{tag}>' for band, value in (offsets or {}).items()
    )
    values = (
        f'<QUANTIFICATION_VALUE unit="none">{quantification}</QUANTIFICATION_VALUE>'
        if level == "1C"
        else f"""<QUANTIFICATION_VALUES_LIST>
        <BOA_QUANTIFICATION_VALUE unit="none">{quantification}</BOA_QUANTIFICATION_VALUE>
        <AOT_QUANTIFICATION_VALUE unit="none">1000.0</AOT_QUANTIFICATION_VALUE>
        <WVP_QUANTIFICATION_VALUE unit="cm">1000.0</WVP_QUANTIFICATION_VALUE>
      </QUANTIFICATION_VALUES_LIST>"""
    )
    files = "\n".join(f"            <IMAGE_FILE>{image}</IMAGE_FILE>" for image in images)
    spectral = "\n".join(
        f'        <Spectral_Information bandId="{i}" physicalBand="{band}"/>' for i, band in enumerate(SPECTRAL)
    )
    space = f"https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_Level-{level}.xsd"
    return f"""<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<n1:Level-{level}_User_Product xmlns:n1="{space}" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
  xsi:schemaLocation="{space}">
  <n1:General_Info>
    <Product_Info>
      <PRODUCT_START_TIME>2020-01-01T10:10:10.024Z</PRODUCT_START_TIME>
      <PROCESSING_LEVEL>Level-{level}</PROCESSING_LEVEL>
      <PRODUCT_TYPE>S2MSI{level}</PRODUCT_TYPE>
      <PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE>
      <Datatake datatakeIdentifier="GS2A_20200101T101010_023600_N{baseline}">
        <SPACECRAFT_NAME>Sentinel-2A</SPACECRAFT_NAME>
      </Datatake>
      <Product_Organisation>
        <Granule_List>
          <Granule datastripIdentifier="S2A_OPER_MSI_L{level}_DS" granuleIdentifier="S2A_OPER_MSI_L{level}_TL"
            imageFormat="JPEG2000">
{files}
          </Granule>
        </Granule_List>
      </Product_Organisation>
    </Product_Info>
    <Product_Image_Characteristics>
      <Special_Values>
        <SPECIAL_VALUE_TEXT>NODATA</SPECIAL_VALUE_TEXT>
        <SPECIAL_VALUE_INDEX>0</SPECIAL_VALUE_INDEX>
      </Special_Values>
      <Special_Values>
        <SPECIAL_VALUE_TEXT>SATURATED</SPECIAL_VALUE_TEXT>
        <SPECIAL_VALUE_INDEX>65535</SPECIAL_VALUE_INDEX>
      </Special_Values>
      {values}
      {f"<{box}>{chr(10)}{listed}{chr(10)}      </{box}>" if offsets is not None else ""}
      <Spectral_Information_List>
{spectral}
      </Spectral_Information_List>
    </Product_Image_Characteristics>
  </n1:General_Info>
</n1:Level-{level}_User_Product>
"""


def write_safe(
    root: Path,
    level: str = "2A",
    baseline: str = "05.09",
    offsets: dict[str, int] | None = None,
    quantification: int = 10_000,
    size: int = SIZE,
) -> tuple[Path, dict[str, NDArray[np.uint16]]]:
    """A product with all its bands; returns its folder and the stored values of the bands of 10 m."""
    number = baseline.replace(".", "")
    safe = root / f"S2A_MSIL{level}_20200101T101010_N{number}_R022_T32TQM_20200101T121212.SAFE"
    granule = f"GRANULE/L{level}_T32TQM_A023600_20200101T101010/IMG_DATA"
    pixels, images = {}, []
    for i, band in enumerate(BANDS):
        pixels[band] = stored(i, size)
        image = f"{granule}/{TILE}_{band}" if level == "1C" else f"{granule}/R10m/{TILE}_{band}_10m"
        images.append(image)
        write(safe / f"{image}.jp2", pixels[band])
    for band in ("B8A", "B11") if level == "1C" else ("B02", "B8A", "B11"):
        image = f"{granule}/{TILE}_{band}" if level == "1C" else f"{granule}/R20m/{TILE}_{band}_20m"
        images.append(image)
        write(safe / f"{image}.jp2", stored(9, size // 2), metres=20)
    (safe / f"MTD_MSIL{level}.xml").write_text(mtd(level, baseline, images, offsets, quantification))
    (safe / "manifest.safe").write_text("<xfdu:XFDU/>")
    return safe, pixels


def zipped(safe: Path) -> Path:
    """Replace a product's folder by its zip."""
    path = Path(shutil.make_archive(str(safe), "zip", safe.parent, safe.name))
    shutil.rmtree(safe)
    return path


def mtl(product: str, numbers: list[int], level1: tuple[float, float], elevation: float) -> dict[str, dict[str, str]]:
    """Groups of a Landsat Collection 2 metadata file."""
    surface = "_SR" if "_L2" in product else ""
    bands = {f"FILE_NAME_BAND_{n}": f"{product}{surface}_B{n}.TIF" for n in numbers}
    groups = {
        "PRODUCT_CONTENTS": {
            "ORIGIN": "Image courtesy of the U.S. Geological Survey",
            "LANDSAT_PRODUCT_ID": product,
            "PROCESSING_LEVEL": product.split("_")[1],
            "COLLECTION_NUMBER": "02",
            "COLLECTION_CATEGORY": "T1",
            "OUTPUT_FORMAT": "GEOTIFF",
            **bands,
        },
        "IMAGE_ATTRIBUTES": {
            "SPACECRAFT_ID": f"LANDSAT_{int(product[2:4])}",
            "SENSOR_ID": "OLI_TIRS",
            "DATE_ACQUIRED": "2018-06-07",
            "SUN_ELEVATION": str(elevation),
        },
    }
    if surface:
        groups["LEVEL2_SURFACE_REFLECTANCE_PARAMETERS"] = {
            f"REFLECTANCE_{key}_BAND_{n}": value
            for n in numbers
            for key, value in (("MULT", "2.75e-05"), ("ADD", "-0.2"))
        }
    groups["LEVEL1_RADIOMETRIC_RESCALING"] = {
        f"REFLECTANCE_{key}_BAND_{n}": str(value)
        for n in numbers
        for key, value in zip(("MULT", "ADD"), level1, strict=True)
    }
    return groups


def mtl_text(groups: dict[str, dict[str, str]]) -> str:
    """Return the same groups as the text that the agency publishes."""
    lines = ["GROUP = LANDSAT_METADATA_FILE"]
    for group, keys in groups.items():
        quoted = {
            k: v if v.replace(".", "").replace("-", "").replace("e", "").isdigit() else f'"{v}"'
            for k, v in keys.items()
        }
        lines += [f"  GROUP = {group}", *(f"    {k} = {v}" for k, v in quoted.items()), f"  END_GROUP = {group}"]
    return "\n".join([*lines, "END_GROUP = LANDSAT_METADATA_FILE", "END", ""])


def mtl_xml(groups: dict[str, dict[str, str]]) -> str:
    """Return the same groups as XML."""
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', "<LANDSAT_METADATA_FILE>"]
    for group, keys in groups.items():
        lines += [f"  <{group}>", *(f"    <{key}>{value}</{key}>" for key, value in keys.items()), f"  </{group}>"]
    return "\n".join([*lines, "</LANDSAT_METADATA_FILE>", ""])


LANDSAT_NUMBERS = {"LC08": {"B02": 2, "B03": 3, "B04": 4, "B08": 5}, "LT05": {"B02": 1, "B03": 2, "B04": 3, "B08": 4}}


def write_landsat(
    root: Path, product: str = "LC08_L2SP_127041_20180607_20200831_02_T1", form: str = "txt", elevation: float = 30.0
) -> tuple[Path, dict[str, NDArray[np.uint16]]]:
    """A product's folder; returns it and the stored values by the bands of Sentinel-2. It has a panchromatic B8."""
    folder, numbers = root / product, LANDSAT_NUMBERS[product[:4]]
    surface = "_SR" if "_L2" in product else ""
    pixels = {band: stored(n, low=7273, high=43636) for band, n in numbers.items()}
    for band, n in numbers.items():
        write(folder / f"{product}{surface}_B{n}.TIF", pixels[band], metres=30)
    write(folder / f"{product}{surface}_B8.TIF", stored(99), metres=30)
    write(folder / f"{product}_QA_PIXEL.TIF", stored(98), metres=30)
    groups = mtl(product, list(numbers.values()), (2e-05, -0.1), elevation)
    if form == "json":
        (folder / f"{product}_MTL.json").write_text(json.dumps({"LANDSAT_METADATA_FILE": groups}))
    elif form == "xml":
        (folder / f"{product}_MTL.xml").write_text(mtl_xml(groups))
    elif form:
        (folder / f"{product}_MTL.txt").write_text(mtl_text(groups))
    return folder, pixels


def write_hls(root: Path, product: str) -> tuple[Path, dict[str, NDArray[np.int16]]]:
    """A granule's folder, `product` being S30 or L30; returns it and the stored values by the bands of Sentinel-2."""
    name = f"HLS.{product}.T32TQM.2020001T101010.v2.0"
    own = {"B02": "B02", "B03": "B03", "B04": "B04", "B08": "B08" if product == "S30" else "B05"}
    pixels = {}
    for i, (band, file) in enumerate(own.items()):
        values = stored(i).astype(np.int16)
        values[values == 0] = -9999
        values[10, :3] = (-20, 0, 1)
        pixels[band] = values
        write(root / name / f"{name}.{file}.tif", values, metres=30, nodata=-9999, scale=0.0001, offset=0.0)
    write(root / name / f"{name}.Fmask.tif", np.zeros((SIZE, SIZE), np.uint8), metres=30)
    write(root / name / f"{name}.B8A.tif" if product == "S30" else root / name / f"{name}.B06.tif", values, metres=30)
    return root / name, pixels


def chip(folder: Path, **more: object) -> dict[str, NDArray[np.uint16]]:
    """Write a chip's folder; return the stored values of its bands."""
    pixels = {band: stored(i) for i, band in enumerate(BANDS)}
    for band, values in pixels.items():
        write(folder / f"{band}.tif", values, **more)
    return pixels


def edit(path, before, after):
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
