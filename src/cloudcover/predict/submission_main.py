"""Mask the challenge's test chips without a network: the `main.py` of a submission (`cloudcover submit`).

It runs in the folder of the unpacked submission, reads `data/test_features/CHIP/BAND.tif` and writes
`predictions/CHIP.tif`, uint8 of {0, 1}. The folder also contains the modules of `cloudcover` and the model.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036  (runtimes of the challenge's time are older)
    sys.exit(f"this submission needs Python 3.11 or newer, but the runtime has {sys.version.split()[0]}")

import numpy as np
import rasterio
from rasterio.errors import RasterioError

from cloudcover.data.geotiff import write_geotiff
from cloudcover.predict.bundle import load_bundle
from cloudcover.predict.images import UnusableImagesError, predict_images
from cloudcover.predict.outputs import Outputs
from cloudcover.rasters.find import find_images

FEATURES, PREDICTIONS, MODEL = Path("data/test_features"), Path("predictions"), Path("model")
SIZE = (512, 512)
"""Height and width of the challenge's chips [pixels]."""


def main() -> None:
    """Write a mask for each chip in any case, because a submission with a missing mask is not scored."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    predictor = load_bundle(MODEL)
    chips = find_images([FEATURES], predictor.card.bands, kind="chip", nodata=predictor.card.nodata)
    try:
        predict_images(predictor, chips, Outputs(PREDICTIONS))
    except UnusableImagesError as error:
        logging.getLogger(__name__).warning("%s\nThese get masks without cloud.", error)
    for chip in chips:
        _without_unknown(PREDICTIONS / f"{chip.name}.tif")


def _without_unknown(path: Path) -> None:
    """Replace pixels without data by 0 (clear), and write a clear mask if there is none."""
    try:
        with rasterio.open(path) as mask:
            pixels, place = mask.read(1), {"crs": mask.crs, "transform": mask.transform}
    except RasterioError:
        pixels, place = np.zeros(SIZE, np.uint8), {}
    write_geotiff(path, (pixels == 1).astype(np.uint8), {"compress": "deflate", **place})


if __name__ == "__main__":
    main()
