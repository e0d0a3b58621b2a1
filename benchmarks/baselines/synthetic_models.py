"""Models that learn from synthetic chips, and from these and tiles of real ones (`real_chips.py`, `box.py`)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from cloudcover.augment.apply import augment
from cloudcover.config.params import Params
from cloudcover.config.training import TrainingConfig
from cloudcover.data.layout import read_metadata, write_file_table
from cloudcover.data.pack import pack
from cloudcover.data.store import ChipStore
from cloudcover.losses.build import build_loss
from cloudcover.models.folder import load_model, save_model
from cloudcover.models.normalize import Normalize
from cloudcover.runtime.device import resolve_device
from cloudcover.runtime.files import derive_seed
from cloudcover.sources import local
from cloudcover.synthetic.generate import generate
from cloudcover.train.learner import cosine
from cloudcover.train.run import train
from cloudcover.train.split import Split

SYNTHETIC = "synthetic"  # group of the chips that are not real
VALIDATION = 8  # every eighth synthetic location tells the best epoch
TUNING_STEPS = 40
TUNING_RATE = 0.0003
TUNING_BATCH = 16
PREDICTED_BORDER = 16  # mirrored pixels in prediction; in training they would cost half as much time again


class Trainer:
    """Trains models on a set of synthetic chips and tiles of the real ones.

    Args:
        params: The config, the size of the chips and the synthetic set; label errors are set to none.
        real: Folders of real chips in the challenge's layout, with the chips to take of each; None: all.
        work: Folder for the chips and models; chips that are there from an earlier run are taken as they are.
        workers: Processes that make the synthetic chips.
        steps: Of the tuning on real tiles.
        rate: Peak learning rate of the tuning.
        place: Name of a chip's place by its location; default: the location.
    """

    def __init__(
        self,
        params: Params,
        real: Mapping[Path, Collection[str] | None],
        work: Path,
        *,
        workers: int = 1,
        steps: int = TUNING_STEPS,
        rate: float = TUNING_RATE,
        place: Callable[[str], str] = str,
    ) -> None:
        self.params, self.work, self.steps, self.rate = params, work, steps, rate
        if not (work / "groups.csv").exists():
            self._collect(real, workers)
        group = pd.read_csv(work / "groups.csv", dtype=str, keep_default_na=False).set_index("chip_id")["group"]
        self.store = ChipStore(work / "store")
        known = self.store.index[self.store.index["labelled"]]
        known = known.assign(place=known["location"].map(place), group=known["chip_id"].map(group))
        self.synthetic, self.real = known[known["group"] == SYNTHETIC], known[known["group"] != SYNTHETIC]

    def _collect(self, real: Mapping[Path, Collection[str] | None], workers: int) -> None:
        """Make the synthetic chips and the tiles and pack them; `groups.csv`, written last, says what a chip is."""
        params, work, raw = self.params, self.work, self.work / "raw"
        exact = params.synthetic.model_copy(update={"label_errors": 0.0})
        generate(exact, params.data, params.seed, raw, work / "truth", workers)
        tables = [pd.read_csv(raw / "train_metadata.csv", dtype=str)]
        group = dict.fromkeys(read_metadata(raw)["chip_id"], SYNTHETIC)
        for folder, chips in real.items():
            source = work / "tiles" / folder.name
            tiles = _tiles(params, folder, chips, source)
            tiles = tiles[~tiles["chip_id"].isin(group)]  # a chip of two folders counts once
            group |= dict.fromkeys(tiles["chip_id"], folder.name)
            for tile in tiles["chip_id"]:
                images = [f"train_features/{tile}/{band}.tif" for band in params.data.bands]
                for path in [*images, f"train_labels/{tile}.tif"]:
                    local.place(source / path, raw / path, "hardlink")
            tables.append(tiles)
        pd.concat(tables).to_csv(raw / "train_metadata.csv", index=False)
        write_file_table(raw, "synthetic and real")
        data = params.data.model_copy(update={"max_quarantined": 1.0})
        pack(raw, work / "store", work / "quarantine.csv", data, workers)
        pd.DataFrame(group.items(), columns=["chip_id", "group"]).to_csv(work / "groups.csv", index=False)

    def alone(self) -> Path:
        """Folder of the model that knows synthetic chips only; it is trained once."""
        folder = self.work / "alone"
        if folder.exists():
            return folder
        held = self.synthetic["location"].isin(sorted(self.synthetic["location"].unique())[::VALIDATION])
        columns = ["chip_id", "label", "weight", "scene", "fold"]
        parts = [
            part.assign(label="human", weight=1.0, fold=fold)[columns].reset_index(drop=True)
            for fold, part in ((1, self.synthetic[~held]), (0, self.synthetic[held]))
        ]
        config = TrainingConfig.of(self.params)
        train(config, self.store, Split(*parts), folder, self.work / "state", run="alone", fold=0)
        return folder

    def with_real(self, without: Sequence[str] = ()) -> list[Path]:
        """Folders of the same model, tuned further on as many real tiles of all places but some as synthetic chips.

        Args:
            without: The places that are left out; each gets a copy of the model, `held-out/<place>`. Without any the
                model is `all`.
        """
        device = resolve_device(self.params.compute.device)
        network, card = load_model(self.alone(), device)
        seed = derive_seed(self.params.seed, "tuning", *without)
        self._tune(network, self.real[~self.real["place"].isin(without)], seed, device)
        folders = [self.work / f"held-out/{place}" for place in without] or [self.work / "all"]
        update = {"run": "with_real", "seed": seed, "metrics": {}, "border": PREDICTED_BORDER}
        for folder in folders:
            save_model(folder, network, card.model_copy(update=update))
        return folders

    def _tune(self, network: torch.nn.Module, real: pd.DataFrame, seed: int, device: str) -> None:
        training = self.params.training
        draw, turns = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
        scaler = Normalize(self.params.input, self.params.data).to(device)
        loss = build_loss(training.loss)
        optimizer = torch.optim.AdamW(network.parameters(), self.rate, weight_decay=training.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cosine(step, self.steps, 5, 0.01))
        synthetic = self.synthetic["chip_id"].to_numpy()
        # Every folder counts the same, and every place within it, however many chips it has.
        places = real.groupby("group")["place"].transform("nunique").to_numpy(float)
        chance = 1 / (places * real.groupby(["group", "place"])["place"].transform("size").to_numpy(float))
        network.train()
        for _ in range(self.steps):
            half = TUNING_BATCH // 2
            chosen = [*draw.choice(real["chip_id"], half, p=chance / chance.sum()), *draw.choice(synthetic, half)]
            images, masks = (torch.from_numpy(read(chosen)) for read in (self.store.chips, self.store.labels))
            images, masks = augment(images, masks, self.params.augmentation, turns, nodata=self.params.data.nodata)
            optimizer.zero_grad()
            percentiles = torch.from_numpy(self.store.percentiles(chosen)).to(device)
            with torch.autocast(device, torch.bfloat16, enabled=self.params.compute.precision == "bf16"):
                logits = network(scaler(images.to(device), percentiles))
            loss(logits.float(), masks.to(device), None).backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), training.gradient_clip or torch.inf)
            optimizer.step()
            schedule.step()
        network.eval()


def _tiles(params: Params, folder: Path, chips: Collection[str] | None, out: Path) -> pd.DataFrame:
    """Cut the chips of a folder into tiles below `out`; returns the metadata of those that are wanted."""
    local.fetch(params.data.model_copy(update={"source": "local", "path": str(folder), "tile": True}), out)
    table = pd.read_csv(out / "train_metadata.csv", dtype=str)
    chip = table["chip_id"].str.rsplit("_", n=2).str[0]
    return table if chips is None else table[chip.isin(list(chips))]
