"""Small sets in the challenge's layout."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_origin

BANDS = ["B02", "B03", "B04", "B08"]


def write_tif(path: Path, pixels: NDArray[np.generic], x: float = 500_000, crs: str = "EPSG:32633") -> None:
    """Writes a single-band GeoTIFF at 10 m."""
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {
        "driver": "GTiff",
        "count": 1,
        "dtype": pixels.dtype,
        "height": pixels.shape[0],
        "width": pixels.shape[1],
    }
    with rasterio.open(path, "w", **profile, crs=crs, transform=from_origin(x, 5_000_000, 10, 10)) as output:
        output.write(pixels, 1)


def write_chips(folder: Path, names: Iterable[str], shape: tuple[int, int] = (64, 64), dn: int = 9000) -> Path:
    """Writes chips of one value in all bands; by default of bright cloud. Returns the folder."""
    for name in names:
        for band in BANDS:
            write_tif(folder / name / f"{band}.tif", np.full(shape, dn, np.uint16))
    return folder


def blob(rng: np.random.Generator, size: int, share: float) -> NDArray[np.bool_]:
    """A smooth random mask that covers about `share` of a square."""
    y, x = np.mgrid[:size, :size] / size
    a, b, c, d = rng.uniform(0.5, 2.5, 4)
    field = np.sin(6 * a * x + 7 * b * y + rng.uniform(0, 6)) + np.sin(5 * c * x - 6 * d * y + rng.uniform(0, 6))
    return np.asarray(field > np.quantile(field, 1 - share))


def make_layout(
    root: Path, chips: int = 12, size: int = 64, scenes: int = 6, unlabelled: int = 2, wrong: int = 0, seed: int = 0
) -> pd.DataFrame:
    """Writes a learnable set: dark ground, bright clouds; the first `wrong` labels are inverted.

    Returns:
        chip_id, location, datetime, split, wrong.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(chips):
        chip_id, scene = f"c{number:03d}", number % scenes
        split = "test" if number >= chips - unlabelled else "train"
        mask = blob(rng, size, rng.uniform(0.2, 0.8))
        for k, band in enumerate(BANDS):
            pixels = rng.normal(900 + 300 * k, 80, mask.shape) + mask * rng.normal(4000, 300, mask.shape)
            write_tif(root / f"{split}_features" / chip_id / f"{band}.tif", np.clip(pixels, 1, 65535).astype(np.uint16))
        is_wrong = number < wrong
        if split == "train":
            write_tif(root / "train_labels" / f"{chip_id}.tif", (mask != is_wrong).astype(np.uint8))
        rows.append(
            {
                "chip_id": chip_id,
                "location": f"place{scene % max(2, scenes // 2)}",
                "datetime": f"2020-{scene % 12 + 1:02d}-10T10:00:00Z",
                "cloudpath": f"{split}_features/{chip_id}",
                "split": split,
                "wrong": is_wrong,
            }
        )
    frame = pd.DataFrame(rows)
    for split, part in frame.groupby("split"):
        part.drop(columns=["split", "wrong"]).to_csv(root / f"{split}_metadata.csv", index=False)
    return frame


def pixels_of(path: Path) -> NDArray[np.generic]:
    """H x W, the first band of an image."""
    with rasterio.open(path) as image:
        return image.read(1)


def files_below(folder: Path) -> list[str]:
    """Names of the files below a folder, hidden ones left out."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("[!.]*") if path.is_file())
