"""Draw the picture of masked real scenes: `python docs/masked_image.py FOLDER CHIP...`.

FOLDER holds chips of the challenge in its layout. The packaged model masks each of them. The upper row shows true
colour, the lower one the same with the mask.
"""

from io import BytesIO
from pathlib import Path

import click
import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from cloudcover import load_model
from cloudcover.data.layout import read_metadata
from cloudcover.data.values import DN_PER_REFLECTANCE
from cloudcover.rasters.find import find_images
from cloudcover.report.pictures import GAMMA, STRETCH, displayed

CLOUD = np.array([0, 190, 255])
"""Colour of the mask, red, green and blue [0-255]."""
SHARE = 0.55
"""Share of that colour where there is cloud."""
NOTE = "Sentinel-2 chips: On Cloud N, Radiant Earth, CC-BY-4.0, doi 10.34911/rdnt.hfq6m7"


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("chips", nargs=-1, required=True)
@click.option("--out", default="docs/images/masked.jpg", type=click.Path(dir_okay=False, path_type=Path))
def main(folder: Path, chips: tuple[str, ...], out: Path) -> None:
    """Mask CHIPS of FOLDER with the packaged model and draw them."""
    model = load_model()
    bands = model.bands
    split = read_metadata(folder).set_index("chip_id")["split"]
    figure, axes = plt.subplots(2, len(chips), figsize=(2.6 * len(chips), 5.2), layout="constrained", squeeze=False)
    for (upper, lower), chip in zip(axes.T, chips, strict=True):
        (found,) = find_images([folder / f"{split[chip]}_features" / chip], bands)
        with found.open() as image:
            dn = image.read(slice(0, image.grid.height), slice(0, image.grid.width))
        cloud = model.predict(dn) == 1
        rgb = dn[[bands.index(band) for band in ("B04", "B03", "B02")]].transpose(1, 2, 0)
        colour = displayed(rgb / DN_PER_REFLECTANCE / STRETCH, GAMMA)
        masked = np.where(cloud[..., np.newaxis], (1 - SHARE) * colour + SHARE * CLOUD, colour).astype(np.uint8)
        for axis, picture in ((upper, colour), (lower, masked)):
            axis.imshow(picture)
            axis.set(xticks=[], yticks=[])
        upper.set_title(f"{chip}: {cloud.mean():.0%} cloud", fontsize=9)
    figure.supxlabel(NOTE, fontsize=6)
    with BytesIO() as buffer:
        figure.savefig(buffer, dpi=110)
        Image.open(buffer).convert("RGB").save(out, quality=85, optimize=True)


if __name__ == "__main__":
    main()
