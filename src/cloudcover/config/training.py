"""The parameters that determine a training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from cloudcover.config.augmentation import AugmentationParams
from cloudcover.config.params import Params, declared, pick
from cloudcover.config.sections import (
    ComputeParams,
    DataParams,
    FoldsParams,
    InputParams,
    MemberParams,
    ModelParams,
    TrainingParams,
)


@dataclass(frozen=True)
class TrainingConfig:
    """What a training is told.

    Attributes:
        KEYS: The sections and keys that it depends on, for rules and everything else that needs them.
    """

    seed: int
    data: DataParams
    folds: FoldsParams
    input: InputParams
    model: ModelParams
    training: TrainingParams
    augmentation: AugmentationParams
    compute: ComputeParams

    KEYS: ClassVar[tuple[str, ...]] = (
        "seed", "data.bands", "data.chip_size", "data.nodata", "folds.group", "input", "model", "training",
        "augmentation", "compute",
    )  # fmt: skip

    @classmethod
    def of(cls, params: Params) -> TrainingConfig:
        """Take what a training depends on from the parameters; all else is missing from its sections."""
        own = declared(pick(params, cls.KEYS))
        return cls(**dict(own))

    def for_member(self, member: MemberParams) -> TrainingConfig:
        """Replace what a member of the final ensemble has otherwise."""
        return replace(
            self,
            model=member.override_model(self.model),
            augmentation=member.override_augmentation(self.augmentation),
        )
