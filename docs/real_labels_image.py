"""Draw the README's picture of real wrong labels: `python docs/real_labels_image.py FOLDER --model models/bundle`.

FOLDER holds chips of the challenge in its layout, right labels and wrong ones together. The model must know none of
them, such as the demo's, which knows synthetic chips only. The audit judges all labels by the model's probabilities and
by its own trees; the most suspicious ones are shown with its reasons, the outline of the label, and the pseudo-label
that takes their place.
"""

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from PIL import Image

from cloudcover.config.params import validate
from cloudcover.data.layout import write_file_table
from cloudcover.data.pack import pack
from cloudcover.data.store import ChipStore
from cloudcover.labels.audit import judge_labels
from cloudcover.labels.evidence import gather_evidence
from cloudcover.labels.reasons import title
from cloudcover.predict.model import load_model
from cloudcover.pseudo_labels.label import labels_of
from cloudcover.report.pictures import mask_picture, true_colour
from cloudcover.sources import local

COLUMNS = 6
ROWS = ["image", "given label", "pseudo-label"]
NOTE = "Sentinel-2 chips and labels: On Cloud N, Radiant Earth, CC-BY-4.0, doi 10.34911/rdnt.hfq6m7"


@click.command()
@click.argument("chips", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--model", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", default="docs/images/real_labels.png", type=click.Path(dir_okay=False, path_type=Path))
def main(chips: Path, model: Path, out: Path) -> None:
    """Judge the labels of CHIPS and draw the most suspicious ones."""
    params = validate({
        "data": {"source": "local", "path": str(chips), "chip_size": 512},
        "evaluation": {"references": []},
    })  # fmt: skip
    with TemporaryDirectory() as folder:
        raw = Path(folder, "raw")
        local.fetch(params.data, raw)
        write_file_table(raw, "real chips")
        pack(raw, Path(folder, "store"), Path(folder, "quarantine.csv"), params.data)
        store = ChipStore(Path(folder, "store"))
        draw(store, load_model(model, tta="d4"), params, out)


def draw(store, model, params, out):
    """Write the picture."""
    chip_ids = sorted(store.index.index[store.index["labelled"]])
    probabilities = dict(zip(chip_ids, model.predictor.probabilities(store.chips(chip_ids), store.percentiles(chip_ids)), strict=True))
    folds = pd.DataFrame({"chip_id": chip_ids, "fold": 0, "scene": store.index.loc[chip_ids, "scene"].to_numpy()})
    evidence, votes = gather_evidence(store, folds, 0, params.seed)
    table = judge_labels(
        store, evidence, votes, lambda ids: np.stack([probabilities[i] for i in ids]), folds, nodata=0
    ).sort_values("suspicion", ascending=False)
    print(table[["chip_id", "suspicion", "reasons"]].to_string(index=False))


if __name__ == "__main__":
    main()
