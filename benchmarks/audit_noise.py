"""Families of label noise for `audit.py`: most of them are none of the errors that the synthetic source makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import rasterio
from numpy.typing import NDArray
from scipy import ndimage

from cloudcover.config.sections import DataParams, SyntheticParams
from cloudcover.data import tables
from cloudcover.data.layout import write_file_table
from cloudcover.data.scenes import scene_of
from cloudcover.masks.truth import TrueMasks
from cloudcover.runtime.files import derive_seed
from cloudcover.sources.fetch import fetch
from cloudcover.synthetic import scene, sites
from cloudcover.synthetic.labels import is_wrong

Mask = NDArray[np.bool_]

OWN = "own"
"""The errors of the synthetic source itself."""
MANY, MANY_SHARE = "many", 0.35
"""The same, but in so many labels [0-1]."""
THICK = 0.15
"""Opacity from which strict annotators call something cloud [0-1]; the truth's threshold is lower."""


@dataclass(frozen=True)
class Label:
    """A careful annotator's label, and what its errors may depend on.

    Attributes:
        mask: The label, H x W.
        opacity: Returns the opacity of the clouds, H x W [0-1].
        other: Returns the true mask of a chip of another scene, the same scene for all chips of this one.
        place: Place of its scene in a random order of all scenes [0-1): errors of 30 % of the scenes are below 0.3.
        scene_rng: Random numbers that all labels of its scene share.
        rng: Random numbers of its own.
    """

    mask: Mask
    opacity: Callable[[], NDArray[np.float32]]
    other: Callable[[], Mask]
    place: float
    scene_rng: np.random.Generator
    rng: np.random.Generator


def none(label: Label) -> Mask:
    """Leave all labels as careful annotators drew them."""
    return label.mask


def thin(label: Label) -> Mask:
    """Mark thick cloud only, in 30 % of the scenes."""
    if label.place >= 0.3:
        return label.mask
    return label.mask & ndimage.binary_dilation(label.opacity() > THICK, iterations=2)


def style(label: Label) -> Mask:
    """Draw outlines 3 pixels wider, in half of the scenes."""
    return ndimage.binary_dilation(label.mask, iterations=3) if label.place < 0.5 else label.mask


def boxes(label: Label) -> Mask:
    """Draw bounding boxes instead of outlines, in 15 % of the labels."""
    if label.rng.random() >= 0.15:
        return label.mask
    boxed = np.zeros_like(label.mask)
    for box in ndimage.find_objects(ndimage.label(label.mask)[0]):
        boxed[box] = True
    return boxed


def shift(label: Label) -> Mask:
    """Move the masks of 30 % of the scenes by 4 to 8 pixels, each scene in one direction; the border is repeated."""
    if label.place >= 0.3:
        return label.mask
    length, angle = label.scene_rng.uniform(4, 8), label.scene_rng.uniform(0, 2 * np.pi)
    offset = length * np.sin(angle), length * np.cos(angle)
    return np.asarray(ndimage.shift(label.mask.astype(np.float32), offset, order=0, mode="nearest") > 0.5)


def scene_failed(label: Label) -> Mask:
    """Give the chips of 20 % of the scenes the masks of another scene, of which about a third is then wrong."""
    return label.other() if label.place < 0.2 else label.mask


FAMILIES: dict[str, Callable[[Label], Mask]] = {f.__name__: f for f in (none, thin, style, boxes, shift, scene_failed)}
"""Families beside `OWN` and `MANY`."""


def make(family: str, data: DataParams, synthetic: SyntheticParams, seed: int, raw: Path, truth: Path) -> pd.Series:
    """Make a synthetic set whose labels have the errors of one family.

    Args:
        family: `OWN`, `MANY` or one of `FAMILIES`.
        data: Bands and chip size.
        synthetic: Size of the set; `label_errors` is used by `OWN` alone.
        seed: Random seed for the set and its errors.
        raw: Gets the set in the challenge's layout.
        truth: Gets the true masks.

    Returns:
        The kind of error of each label, by chip: that of the synthetic source, or the family's name where the family
        changed the label and it is wrong by `is_wrong`; empty for right labels.
    """
    if family == MANY:
        synthetic = synthetic.model_copy(update={"label_errors": MANY_SHARE})
    if family in (OWN, MANY):
        fetch(data, synthetic, seed, raw, truth)
        return tables.TRUTH.read(truth / "masks.csv").set_index("chip_id")["error"]
    fetch(data, synthetic.model_copy(update={"label_errors": 0.0}), seed, raw, truth)
    chips = tables.METADATA.read(raw / "train_metadata.csv")
    scenes = scene_of(chips["location"], chips["datetime"]).groupby(chips["chip_id"]).first()
    masks = TrueMasks(truth / "masks.csv")
    order = np.random.default_rng(derive_seed(seed, family)).permutation(sorted(scenes.unique())).tolist()
    errors = {}
    for chip_id, of in scenes.items():
        others = scenes.index[scenes == order[order.index(of) - 1]]
        other = others[int((scenes.index[scenes == of] == chip_id).argmax()) % len(others)]
        with rasterio.open(raw / "train_labels" / f"{chip_id}.tif", "r+") as file:
            label = Label(
                file.read(1) == 1,
                lambda chip_id=chip_id: _opacity(chip_id, seed, synthetic, data.chip_size),
                lambda other=other: masks.masks([other])[0] == 1,
                order.index(of) / len(order),
                np.random.default_rng(derive_seed(seed, family, of)),
                np.random.default_rng(derive_seed(seed, family, chip_id)),
            )
            given = FAMILIES[family](label)
            file.write(given.astype(np.uint8), 1)
        changed = bool((given != label.mask).any())
        errors[chip_id] = family if changed and is_wrong(given, masks.masks([chip_id])[0] == 1) else ""
    write_file_table(raw, "synthetic")
    return pd.Series(errors, name="error")


def _opacity(chip_id: str, seed: int, synthetic: SyntheticParams, size: int) -> NDArray[np.float32]:
    """Draw a synthetic chip again; its id names scene and position."""
    number, position = (int(part) for part in chip_id[1:].split("c"))
    of = sites.scene(seed, number, synthetic.locations, sites.Variety.of(synthetic))
    return scene.render(seed, of, position, size).opacity
