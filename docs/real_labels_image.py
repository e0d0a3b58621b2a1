"""Draw the README's picture of real wrong labels: `python docs/real_labels_image.py FOLDER --model models/bundle`.

FOLDER contains chips of the challenge in its layout, with right and wrong labels. The model must not have seen them, as
is the case for the demo's model, which has only seen synthetic chips. The audit judges all labels by the model's
probabilities and by its own trees. The most suspicious ones are shown with its reasons and with their pseudo-label.
"""

from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from PIL import Image

from cloudcover.config.params import Params, validate
from cloudcover.data.layout import write_file_table
from cloudcover.data.pack import pack
from cloudcover.data.store import ChipStore
from cloudcover.labels.audit import judge_labels
from cloudcover.labels.evidence import gather_evidence
from cloudcover.labels.reasons import title
from cloudcover.predict.model import CloudModel, load_model
from cloudcover.pseudo_labels.label import confident_share, labels_of
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


def draw(store: ChipStore, model: CloudModel, params: Params, out: Path) -> None:
    """Judge all labels of the store and write the picture."""
    chip_ids = sorted(store.index.index[store.index["labelled"]])
    chips = store.chips(chip_ids)
    probabilities = dict(zip(chip_ids, model.predictor.probabilities(chips, store.percentiles(chip_ids)), strict=True))
    folds = pd.DataFrame({"chip_id": chip_ids, "fold": 0, "scene": store.index.loc[chip_ids, "scene"].to_numpy()})
    evidence, votes = gather_evidence(store, folds, params.seed)
    table = judge_labels(store, evidence, votes, lambda ids: np.stack([probabilities[i] for i in ids]), folds)
    table = table.sort_values("suspicion", ascending=False, kind="stable")
    click.echo(table[["chip_id", "suspicion", "reasons"]].to_string(index=False))
    figure, axes = plt.subplots(len(ROWS), COLUMNS, figsize=(1.5 * COLUMNS, 1.62 * len(ROWS)), layout="constrained")
    for column, (chip_id, reasons) in enumerate(table[["chip_id", "reasons"]].head(COLUMNS).itertuples(index=False)):
        chip = store.chips([chip_id])
        known = ~(chip == params.data.nodata).any(axis=1)
        found = probabilities[chip_id][np.newaxis]
        pseudo = labels_of(found, known, params.pseudo_labels)[0]
        pictures = (true_colour(chip[0], store.bands()), mask_picture(store.labels([chip_id])[0]), mask_picture(pseudo))
        for row, picture in enumerate(pictures):
            axes[row, column].imshow(picture)
            axes[row, column].set(xticks=[], yticks=[])
        share = confident_share(found, known, params.pseudo_labels.pixel_confidence)[0]
        if share <= params.pseudo_labels.chip_confidence:
            axes[-1, column].set_xlabel(f"not accepted:\n{share:.0%} confident", fontsize=7)
        words = ",\n".join(title(reason) for reason in reasons.split()[:2]) or "no reason"
        axes[0, column].set_title(f"{chip_id}\n{words}", fontsize=8)
    for row, name in enumerate(ROWS):
        axes[row, 0].set_ylabel(name, fontsize=8)
    figure.supxlabel(NOTE, fontsize=6)
    with BytesIO() as buffer:
        figure.savefig(buffer, dpi=110)
        Image.open(buffer).convert("RGB").quantize(128).save(out, optimize=True)


if __name__ == "__main__":
    main()
