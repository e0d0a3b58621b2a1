"""The sections of the parameters that determine a training."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import ClassVar

from cloudcover.config.params import Params
from cloudcover.config.sections import (
    AugmentationParams,
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
        SECTIONS: names of its sections, for rules, fingerprints and everything else that needs them.
    """

    seed: int
    data: DataParams
    folds: FoldsParams
    input: InputParams
    model: ModelParams
    training: TrainingParams
    augmentation: AugmentationParams
    compute: ComputeParams

    SECTIONS: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def of(cls, params: Params) -> TrainingConfig:
        """Take its sections from the parameters."""
        return cls(**{name: getattr(params, name) for name in cls.SECTIONS})

    def for_member(self, member: MemberParams) -> TrainingConfig:
        """Replace what a member of the final ensemble has otherwise."""
        return replace(
            self,
            model=member.override_model(self.model),
            augmentation=member.override_augmentation(self.augmentation),
        )


TrainingConfig.SECTIONS = tuple(field.name for field in fields(TrainingConfig))
