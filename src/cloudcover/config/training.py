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
    """All parameters of a training.

    Attributes:
        KEYS: The sections and keys that a training depends on, for the rules and for fingerprints.
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
        """Extract the parameters that a training depends on; all others are missing from the sections."""
        own = declared(pick(params, cls.KEYS))
        return cls(**dict(own))

    def for_member(self, member: MemberParams) -> TrainingConfig:
        """Apply the overrides of a member of the final ensemble."""
        return replace(
            self,
            model=member.override_model(self.model),
            augmentation=member.override_augmentation(self.augmentation),
        )
