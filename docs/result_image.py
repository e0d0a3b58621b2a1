"""Draw the picture of `docs/method.md` from a finished run: `python docs/result_image.py` in the project's folder.

Rejected labels whose pseudo-label was accepted in the last round: image, given label, pseudo-label, and the true mask
where the source knows it.
"""

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import rasterio

from cloudcover.data import tables
from cloudcover.data.store import ChipStore
from cloudcover.masks.pseudo import PseudoLabels
from cloudcover.report.pictures import mask_picture, true_colour

COLUMNS = 6


def main() -> None:
    """Write `docs/images/result.png`."""
    store = ChipStore("data/store")
    last = sorted(Path("data/labels").glob("round*/manifest.csv"))[-1]
    pseudo = PseudoLabels(last)
    truth = tables.TRUTH.read("data/truth/masks.csv").set_index("chip_id")
    table = pseudo.table[(pseudo.table["label"] == "pseudo") & (pseudo.table["verdict"] == "bad")]
    most_mixed_first = (table["coverage_share"] - 0.5).abs().sort_values()
    chips = most_mixed_first.index.tolist()[:COLUMNS]
    rows = ["image", "given label (rejected)", "pseudo-label", *(["true mask"] if len(truth) else [])]
    figure, axes = plt.subplots(
        len(rows), len(chips), figsize=(1.6 * len(chips), 1.65 * len(rows)), layout="constrained", squeeze=False
    )
    for column, chip_id in enumerate(chips):
        pictures = [
            true_colour(store.chips([chip_id])[0], store.bands()),
            mask_picture(store.labels([chip_id])[0]),
            mask_picture(pseudo.masks([chip_id])[0]),
        ]
        if len(truth):
            with rasterio.open(Path("data/truth") / truth.at[chip_id, "path"]) as source:
                pictures.append(mask_picture(source.read(1)))
        for row, picture in enumerate(pictures):
            axes[row, column].imshow(picture)
            axes[row, column].set(xticks=[], yticks=[])
        axes[0, column].set_title(truth["error"].get(chip_id, chip_id).replace("_", " ") or "no error", fontsize=8)
    for row, name in enumerate(rows):
        axes[row, 0].set_ylabel(name, fontsize=8)
    figure.savefig("docs/images/result.png", dpi=110)


if __name__ == "__main__":
    main()
