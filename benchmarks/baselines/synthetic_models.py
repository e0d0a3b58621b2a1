"""Models that learn from synthetic chips, and from these and views of real ones (`real_chips.py`, `box.py`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from baselines.real_views import RealChip, RealViews

from cloudcover.augment.apply import augment
from cloudcover.config.params import Params
from cloudcover.config.training import TrainingConfig
from cloudcover.data.pack import pack
from cloudcover.data.store import ChipStore
from cloudcover.losses.build import build_loss
from cloudcover.models.folder import load_model, save_model
from cloudcover.models.normalize import Normalize
from cloudcover.runtime.device import resolve_device
from cloudcover.runtime.files import derive_seed
from cloudcover.synthetic.generate import generate
from cloudcover.train.learner import cosine
from cloudcover.train.run import train
from cloudcover.train.split import Split

VALIDATION = 8  # every eighth synthetic location selects the best epoch
TUNING_STEPS = 40
TUNING_RATE = 0.0003
TUNING_BATCH = 16
TUNED_SHARE = 0.55  # of the way from the weights before the tuning to those after it
PREDICTED_BORDER = 16  # mirrored pixels in prediction; in training they would cost half as much time again


class Trainer:
    """Trains models on a set of synthetic chips and views of real ones.

    Args:
        params: The config, the size of the chips and the synthetic set; label errors are set to none.
        real: The real chips.
        work: Folder for the chips and models; those from an earlier run are used again.
        workers: Processes that make the synthetic chips.
        steps: Steps of the tuning on real views.
        rate: Peak learning rate of the tuning.
    """

    def __init__(
        self,
        params: Params,
        real: Sequence[RealChip],
        work: Path,
        *,
        workers: int = 1,
        steps: int = TUNING_STEPS,
        rate: float = TUNING_RATE,
    ) -> None:
        self.params, self.real, self.work, self.steps, self.rate = params, real, work, steps, rate
        if not (work / "store").exists():
            exact = params.synthetic.model_copy(update={"label_errors": 0.0})
            generate(exact, params.data, params.seed, work / "raw", work / "truth", workers)
            data = params.data.model_copy(update={"max_quarantined": 1.0})
            pack(work / "raw", work / "store", work / "quarantine.csv", data, workers)
        self.store = ChipStore(work / "store")
        self.synthetic = self.store.index[self.store.index["labelled"]]

    def alone(self) -> Path:
        """Return the folder of the model that knows only synthetic chips; it is trained once."""
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
        """Return folders of the same model, tuned on as many views of real chips as synthetic chips.

        The weights are then moved back towards those before the tuning: in between, a model knows the real chips and
        still remembers what they do not show (Wortsman et al. 2022, https://arxiv.org/abs/2109.01903).

        Args:
            without: The places that are left out; each gets a copy of the model, `held-out/<place>`. Without any the
                model is `all`.
        """
        folders = [self.work / f"held-out/{place}" for place in without] or [self.work / "all"]
        device = resolve_device(self.params.compute.device)
        network, card = load_model(self.alone(), device)
        seed = derive_seed(self.params.seed, "tuning", *without)
        views = RealViews([chip for chip in self.real if chip.place not in without], self.params.data.chip_size)
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        self._tune(network, views, seed, device)
        _move_back(network, before)
        update = {"run": "with_real", "seed": seed, "metrics": {}, "border": PREDICTED_BORDER}
        for folder in folders:
            save_model(folder, network, card.model_copy(update=update))
        return folders

    def _tune(self, network: torch.nn.Module, views: RealViews, seed: int, device: str) -> None:
        training = self.params.training
        draw, turns = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
        scaler = Normalize(self.params.input, self.params.data).to(device)
        loss = build_loss(training.loss)
        optimizer = torch.optim.AdamW(network.parameters(), self.rate, weight_decay=training.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cosine(step, self.steps, 5, 0.01))
        network.train()
        for _ in range(self.steps):
            images, masks = self._batch(views, draw)
            images, masks = augment(images, masks, self.params.augmentation, turns, nodata=self.params.data.nodata)
            optimizer.zero_grad()
            with torch.autocast(device, torch.bfloat16, enabled=self.params.compute.precision == "bf16"):
                logits = network(scaler(images.to(device)).contiguous(memory_format=torch.channels_last))
            loss(logits.float(), masks.to(device), None).backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), training.gradient_clip or torch.inf)
            optimizer.step()
            schedule.step()
        network.eval()

    def _batch(self, views: RealViews, draw: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Return images and masks: real views, then as many synthetic chips."""
        half = TUNING_BATCH // 2
        images, masks = views.draw(half, draw)
        chosen = draw.choice(self.synthetic["chip_id"].to_numpy(), TUNING_BATCH - half)
        images = np.concatenate([images, self.store.chips(chosen)])
        return torch.from_numpy(images), torch.from_numpy(np.concatenate([masks, self.store.labels(chosen)]))


def _move_back(network: torch.nn.Module, before: Mapping[str, torch.Tensor]) -> None:
    """Interpolate weights and running statistics between those before the tuning and those after it."""
    between = {
        name: torch.lerp(before[name], after, TUNED_SHARE) if after.is_floating_point() else after
        for name, after in network.state_dict().items()
    }
    network.load_state_dict(between)
