"""What all sections of the parameters have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    """A section of `params.yaml`: unknown keys are refused, and values are checked."""

    model_config = ConfigDict(extra="forbid", frozen=True)
