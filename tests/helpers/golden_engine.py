"""Makes `golden_engine.npz`: `python tests/helpers/golden_engine.py [REAL_CHIPS]` in the project's folder.

What augmentations, losses and networks give on fixed chips, so that a change of a library or of the code that moves the
numbers is seen. One set of chips is computed and always there; the other is a window of real chips (in the challenge's
layout), of which only results are stored, never pixels. Networks get weights by a formula, so that the files do not
depend on how a library initialises them.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray

from cloudcover.augment.apply import AUGMENTATIONS, augment
from cloudcover.config.augmentation import AugmentationParams
from cloudcover.config.sections import DataParams, InputParams, ModelParams
from cloudcover.losses.build import LOSSES, smooth
from cloudcover.models.build import ARCHITECTURES, build_model
from cloudcover.models.normalize import Normalize

FILE = Path(__file__).with_name("golden_engine.npz")
SIZE = 64
REAL = {"chip_id_1": (0, 0), "chip_id_4": (224, 224), "adwz": (128, 64), "101657": (300, 100)}
"""Real chips, and the corners of their windows [pixels]."""
CHANGES = {
    **{name: {name: 1.0} for name in AUGMENTATIONS},
    "crop": {"crop_size": 32},
    "resolution": {"multi_resolution": 1.0, "resolutions": [0.5, 1.5]},
}

Arrays = dict[str, NDArray[np.generic]]
Chips = tuple[NDArray[np.uint16], NDArray[np.uint8]]
"""N x 4 x H x W [DN] and N x H x W."""


def drawn_chips() -> Chips:
    """Four computed chips and masks."""
    n, y, x = np.meshgrid(np.arange(4), np.arange(SIZE), np.arange(SIZE), indexing="ij")
    field = np.sin(x / (5 + n) + n) + np.cos(y / (9 - n) - n) + 0.3 * np.sin((x + 2 * y) / 3)
    cloud = field > 0.2 * n
    bands = [900 + 200 * b + 150 * np.sin((x + b) / 2) * np.cos(y / 4) + cloud * (2500 + 800 * field) for b in range(4)]
    masks = np.where((x + y) % 41 == 0, 255, cloud).astype(np.uint8)
    chips = np.rint(np.stack(bands, 1)).astype(np.uint16)
    chips[1, :, :, 30:34] = 0
    return chips, masks


def real_chips(folder: Path) -> Chips:
    """Windows of real chips and their labels."""

    def window(path: Path, corner: tuple[int, int]) -> NDArray[np.generic]:
        with rasterio.open(path) as source:
            top, left = corner
            return source.read(1)[top : top + SIZE, left : left + SIZE]

    bands = DataParams().bands
    chips = [[window(folder / "train_features" / c / f"{b}.tif", at) for b in bands] for c, at in REAL.items()]
    masks = [window(folder / "train_labels" / f"{c}.tif", at) for c, at in REAL.items()]
    return np.array(chips, np.uint16), np.array(masks, np.uint8)


def results(sets: Mapping[str, Chips]) -> Arrays:
    """What everything gives on these sets of chips, by the name of the set and of the result."""
    found: Arrays = {}
    for kind, arrays in sets.items():
        dn, target = map(torch.from_numpy, arrays)
        found |= {f"{kind}/{name}": array for name, array in {**_augmented(dn, target), **_losses(dn, target)}.items()}
    return found | _logits({kind: torch.from_numpy(chips) for kind, (chips, _) in sets.items()})


def _augmented(dn: torch.Tensor, target: torch.Tensor) -> Arrays:
    """Means of squares of 16 pixels: DN by chip and band, and shares of cloud and of unknown pixels by chip."""
    found: Arrays = {}
    for name, change in CHANGES.items():
        params = AugmentationParams.model_validate({"hflip": 0.0, "vflip": 0.0, **change})
        images, masks = augment(dn.clone(), target.clone(), params, torch.Generator().manual_seed(0))
        labels = torch.stack([masks == 1, masks == 255], 1)
        found[f"augment/{name}/dn"] = torch.nn.functional.avg_pool2d(images.float(), 16).numpy()
        found[f"augment/{name}/labels"] = torch.nn.functional.avg_pool2d(labels.float(), 16).numpy()
    return found


def _losses(dn: torch.Tensor, target: torch.Tensor) -> Arrays:
    """Value, and the gradient at every 16th pixel, on hard and on soft labels."""
    found: Arrays = {}
    weight = torch.tensor([1.0, 0.5, 2.0, 1.0])
    for name, loss in LOSSES.items():
        for kind, labels in (("hard", target), ("soft", smooth(target, 0.2))):
            logits = ((dn[:, :1].float() - 2000) / 700).requires_grad_()
            value = loss(logits, labels, weight)
            value.backward()
            assert logits.grad is not None
            found[f"loss/{name}/{kind}"] = np.array(value.item())
            found[f"gradient/{name}/{kind}"] = logits.grad[:, 0, ::16, ::16].numpy()
    return found


def _logits(sets: Mapping[str, torch.Tensor]) -> Arrays:
    """Logits of every architecture at every 16th pixel of each set; a network is made once for all sets."""
    found: Arrays = {}
    data = DataParams()
    normalize = Normalize(InputParams(), data)
    for name in ARCHITECTURES:
        network = build_model(ModelParams.model_validate({"architecture": name, "border": 0}), data.bands).eval()
        state = network.state_dict()
        network.load_state_dict({key: _formula(key, value) for key, value in state.items()})
        for kind, dn in sets.items():
            with torch.no_grad():
                found[f"{kind}/logits/{name}"] = network(normalize(dn))[:, 0, ::16, ::16].numpy()
    return found


def _formula(name: str, weight: torch.Tensor) -> torch.Tensor:
    """Numbers that depend on a weight's name and shape alone; variances are positive, scales near 1."""
    if not weight.is_floating_point():
        return weight
    noise = np.random.default_rng(zlib.crc32(name.encode())).normal(size=tuple(weight.shape))
    if weight.ndim > 1:
        values = noise * np.sqrt(2 / weight[0].numel())
    elif name.endswith(("running_var", "weight")):
        values = 1 + 0.1 * np.tanh(noise)
    else:
        values = 0.1 * noise
    return torch.from_numpy(values).to(weight.dtype)


def main() -> None:
    """Writes the file; without a folder of real chips their results are kept."""
    old: Arrays = dict(np.load(FILE)) if FILE.exists() else {}
    sets = {"drawn": drawn_chips()}
    if len(sys.argv) > 1:
        sets["real"] = real_chips(Path(sys.argv[1]))
    found = {name: array for name, array in old.items() if name.startswith("real/")} | results(sets)
    np.savez_compressed(FILE, **found)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
