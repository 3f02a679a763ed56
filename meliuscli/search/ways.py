"""The ways in which a search space has its networks trained: as a proxy, in the finals, on other data."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from meliuscli.training.recipe import Recipe


class Proxy(BaseModel):
    """What stands in for the target when candidates are trained. A score is the mean of ``seeds`` trainings."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    dataset: str
    input_size: Annotated[int, Field(strict=True, ge=1, le=1024)]
    width_divisor: Annotated[int, Field(strict=True, ge=1, le=1024)] = 1
    seeds: Annotated[int, Field(strict=True, ge=1, le=64)] = 1
    recipe: Recipe

    @property
    def digest(self) -> str:
        """The same for ways of training that give the same scores, however many seeds are averaged."""
        fields = self.model_dump(mode="json", exclude={"seeds"})
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]


class Final(BaseModel):
    """How finalists and known networks are trained for the last comparison."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    recipe: Recipe


class Transfer(BaseModel):
    """How finalists and known networks are trained on data that the search never used (``search --transfer``)."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    input_size: Annotated[int, Field(strict=True, ge=1, le=1024)] = 32
    width_divisor: Annotated[int, Field(strict=True, ge=1, le=1024)] = 8
    recipe: Recipe = Field(
        default_factory=lambda: Recipe(epochs=2.0, batch_size=64, learning_rate=0.015, betas=(0.9, 0.99))
    )
