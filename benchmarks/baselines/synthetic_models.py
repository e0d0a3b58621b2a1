"""Models that learn from synthetic chips, and from these and tiles of real ones, as `real_chips.py` compares them."""

from __future__ import annotations

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
from cloudcover.runtime.files import derive_seed
from cloudcover.sources import local
from cloudcover.synthetic.generate import generate
from cloudcover.train.learner import cosine
from cloudcover.train.run import train
from cloudcover.train.split import Split

VALIDATION = 8  # every eighth synthetic location tells the best epoch
TUNING_STEPS = 40
TUNING_RATE = 0.0003


class Trainer:
    """Trains models on a set of synthetic chips and tiles of the real ones.

    Args:
        params: the config, the size of the chips and the synthetic set; label errors are set to none.
        real: folder of real chips in the challenge's layout.
        work: folder for the chips and models.
    """

    def __init__(self, params: Params, real: Path, work: Path) -> None:
        self.params, self.work = params, work
        raw, tiles = work / "raw", work / "tiles"
        exact = params.synthetic.model_copy(update={"label_errors": 0.0})
        generate(exact, params.data, params.seed, raw, work / "truth")
        synthetic = read_metadata(raw)["chip_id"]
        local.fetch(params.data.model_copy(update={"source": "local", "path": str(real), "tile": True}), tiles)
        for path in tiles.glob("train_*/**/*.tif"):
            local.place(path, raw / path.relative_to(tiles), "hardlink")
        tables = [pd.read_csv(folder / "train_metadata.csv", dtype=str) for folder in (raw, tiles)]
        pd.concat(tables).to_csv(raw / "train_metadata.csv", index=False)
        write_file_table(raw, "synthetic and real")
        pack(raw, work / "store", work / "quarantine.csv", params.data.model_copy(update={"max_quarantined": 1.0}))
        self.store = ChipStore(work / "store")
        known = self.store.index[self.store.index["labelled"]]
        self.synthetic = known[known["chip_id"].isin(synthetic)]
        self.real = known[~known["chip_id"].isin(synthetic)]

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

    def with_real(self, without: str) -> Path:
        """Folder of the same model, tuned further on as many real tiles of all locations but one as synthetic chips."""
        network, card = load_model(self.alone())
        real = self.real[self.real["location"] != without]
        seed = derive_seed(self.params.seed, "tuning", without)
        self._tune(network, real, seed)
        folder = self.work / f"without-{without}"
        save_model(folder, network, card.model_copy(update={"run": "with_real", "seed": seed, "metrics": {}}))
        return folder

    def _tune(self, network: torch.nn.Module, real: pd.DataFrame, seed: int) -> None:
        training = self.params.training
        draw, turns = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
        scaler, loss = Normalize(self.params.input, self.params.data), build_loss(training.loss)
        optimizer = torch.optim.AdamW(network.parameters(), TUNING_RATE, weight_decay=training.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cosine(step, TUNING_STEPS, 5, 0.01))
        synthetic = self.synthetic["chip_id"].to_numpy()
        # Every location counts the same, however many chips it has.
        chance = 1 / real.groupby("location")["location"].transform("size").to_numpy(float)
        network.train()
        for _ in range(TUNING_STEPS):
            half = training.batch_size // 2
            chosen = [*draw.choice(real["chip_id"], half, p=chance / chance.sum()), *draw.choice(synthetic, half)]
            images, masks = (torch.from_numpy(read(chosen)) for read in (self.store.chips, self.store.labels))
            images, masks = augment(images, masks, self.params.augmentation, turns, nodata=self.params.data.nodata)
            optimizer.zero_grad()
            loss(network(scaler(images, self.store.percentiles(chosen))), masks, None).backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), training.gradient_clip or torch.inf)
            optimizer.step()
            schedule.step()
        network.eval()
