"""The common base of all parameter sections."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    """A section of `params.yaml` that rejects unknown keys and checks values."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
