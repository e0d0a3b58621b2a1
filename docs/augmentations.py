"""Draw the picture of `docs/augmentation.md`: `python docs/augmentations.py` in the project's folder.

Every augmentation is applied to the same batch of synthetic chips; the first one is shown with its label below.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

from cloudcover.augment.apply import AUGMENTATIONS, augment
from cloudcover.config.augmentation import AugmentationParams
from cloudcover.config.sections import DataParams, SyntheticParams
from cloudcover.data.chips import read_chip
from cloudcover.report.pictures import mask_picture, true_colour
from cloudcover.synthetic.generate import generate

CHANGES: dict[str, dict[str, object]] = {
    "as given": {},
    **{name: {name: 1.0} for name in AUGMENTATIONS},
    "crop_size 64": {"crop_size": 64},
    "resolution 0.67": {"multi_resolution": 1.0, "resolutions": [0.67]},
    "resolution 2": {"multi_resolution": 1.0, "resolutions": [2.0]},
}
COLUMNS = 7
CHIPS = 4
SIZE = 96
"""Side of a chip [pixels]."""
SEED = 11
"""Parameters of the drawn augmentations, chosen so that every change is visible."""


def make_chips() -> tuple[torch.Tensor, torch.Tensor]:
    """Make chips (N x B x H x W uint16 [DN]) of different scenes, half covered by cloud, and their labels."""
    parameters = SyntheticParams.model_validate({"chips": 40, "scenes": 40, "unlabelled": 0, "label_errors": 0})
    data = DataParams.model_validate({"chip_size": SIZE})
    with TemporaryDirectory() as folder:
        raw = Path(folder, "raw")
        generate(parameters, data, 0, raw, Path(folder, "truth"), progress=False)
        chips = {
            path.stem: read_chip(raw / "train_features" / path.stem, path, data.bands, (SIZE, SIZE))
            for path in sorted(raw.glob("train_labels/*.tif"))
        }
    labels = {name: chip.label for name, chip in chips.items() if chip.label is not None}
    chosen = sorted(labels, key=lambda name: -abs(float((labels[name] == 1).mean()) - 0.4))[-CHIPS:]
    images = np.stack([chips[name].bands for name in chosen])
    return torch.from_numpy(images), torch.from_numpy(np.stack([labels[name] for name in chosen]))


def main() -> None:
    """Write `docs/images/augmentations.png`."""
    chips, labels = make_chips()
    rows = -(-len(CHANGES) // COLUMNS)
    figure, axes = plt.subplots(2 * rows, COLUMNS, figsize=(1.5 * COLUMNS, 3.2 * rows), layout="constrained")
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    for k, (name, change) in enumerate(CHANGES.items()):
        params = AugmentationParams.model_validate({"hflip": 0.0, "vflip": 0.0, **change})
        images, masks = augment(chips.clone(), labels.clone(), params, torch.Generator().manual_seed(SEED))
        row, column = 2 * (k // COLUMNS), k % COLUMNS
        axes[row, column].imshow(true_colour(images[0].numpy(), DataParams().bands), interpolation="nearest")
        axes[row + 1, column].imshow(mask_picture(masks[0].numpy().astype(np.uint8)), interpolation="nearest")
        axes[row, column].set_title(name, fontsize=8)
    figure.savefig(Path("docs/images/augmentations.png"), dpi=100)


if __name__ == "__main__":
    main()
