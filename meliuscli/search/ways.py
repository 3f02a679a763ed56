"""The ways in which a search space has its networks trained: as a proxy, in the finals, on other data."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from meliuscli.arch.adapt import as_proxy
from meliuscli.arch.spec import ArchSpec
from meliuscli.arch.zoo import find_name, load_name
from meliuscli.training.recipe import Recipe


class Proxy(BaseModel):
    """What stands in for the target when candidates are trained. A score is the mean of ``seeds`` trainings. Inputs below
    50x50 take the thumbnail stem; larger ones keep the target's.

    ``teacher`` names a network that is moved, narrowed and trained as the candidates are, by the labels alone, and then
    teaches them: its outputs have the recipe's ``distill_weight`` in their loss. Both are for ``check-proxy``."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    dataset: str
    input_size: Annotated[int, Field(strict=True, ge=1, le=1024)]
    width_divisor: Annotated[int, Field(strict=True, ge=1, le=1024)] = 1
    seeds: Annotated[int, Field(strict=True, ge=1, le=64)] = 1
    teacher: str | None = None
    recipe: Recipe

    @field_validator("teacher")
    @classmethod
    def _is_known(cls, name: str | None) -> str | None:
        return None if name is None else find_name(name, "teacher")

    @field_validator("recipe")
    @classmethod
    def _weighs_a_teacher(cls, recipe: Recipe, info: ValidationInfo) -> Recipe:
        if (recipe.distill_weight > 0) is (info.data.get("teacher") is None):
            raise ValueError(
                f"a teacher and a distill_weight above 0 need each other, and it is {recipe.distill_weight:g}"
            )
        return recipe

    def teacher_spec(self, num_classes: int, input_channels: int) -> ArchSpec | None:
        """The teacher as it is trained. Raises ``SpecError`` when it cannot exist."""
        if self.teacher is None:
            return None
        return as_proxy(load_name(self.teacher), num_classes, input_channels, self.input_size, self.width_divisor)

    @property
    def digest(self) -> str:
        """The same for ways of training that give the same scores, however many seeds are averaged."""
        absent = (
            {"teacher"} if self.teacher is None else set[str]()
        )  # a way without one is what it was before there were any
        fields = self.model_dump(mode="json", exclude={"seeds", *absent})
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]


def _untaught(recipe: Recipe) -> Recipe:
    if recipe.distill_weight > 0:
        raise ValueError(f"distill_weight must be 0 where nothing teaches, and it is {recipe.distill_weight:g}")
    return recipe


Untaught = Annotated[Recipe, AfterValidator(_untaught)]
"""A recipe of a training without a teacher."""


class Final(BaseModel):
    """How finalists and known networks are trained for the last comparison."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    recipe: Untaught


class Transfer(BaseModel):
    """How finalists and known networks are trained on data that the search never used (``search --transfer``)."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    input_size: Annotated[int, Field(strict=True, ge=1, le=1024)] = 32
    width_divisor: Annotated[int, Field(strict=True, ge=1, le=1024)] = 8
    recipe: Untaught = Field(
        default_factory=lambda: Recipe(epochs=2.0, batch_size=64, learning_rate=0.015, betas=(0.9, 0.99))
    )
