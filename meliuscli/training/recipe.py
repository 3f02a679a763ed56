"""How a network is trained: a frozen value."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from meliuscli.arch.spec import read_toml, validate
from meliuscli.errors import unknown_name

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class Recipe(BaseModel):
    """A cosine from ``learning_rate`` to 0 over all steps. The defaults are MeliusNet's own recipe.

    ``betas`` and ``eps`` are for RAdam, Adam and AdamW, ``momentum`` (Nesterov's) for SGD. ``weight_decay`` is on all
    parameters; with ``adamw`` it is decoupled from the gradient. ``max_gradient_norm`` scales longer gradients down to
    this norm. ``clip_threshold`` is that of the signs' gradients. ``validate_at`` are fractions of the whole training
    after which to validate too, besides every epoch and the end."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    epochs: Positive = 120.0
    batch_size: Annotated[int, Field(strict=True, ge=1)] = 64
    optimizer: Literal["radam", "adam", "adamw", "sgd"] = "radam"
    learning_rate: Positive = 0.002
    betas: tuple[Fraction, Fraction] = (0.95, 0.999)
    eps: Positive = 1e-5
    momentum: Fraction = 0.9
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    max_gradient_norm: Positive | None = None
    label_smoothing: Fraction = 0.0
    clip_threshold: Positive = 1.3
    flip: bool = True
    shift: Annotated[int, Field(strict=True, ge=0, le=64)] = 2
    validate_at: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = ()

    def num_steps(self, num_images: int) -> int:
        """Optimiser steps in all; an epoch is the whole batches in ``num_images``."""
        return max(1, round(self.epochs * self.steps_per_epoch(num_images)))

    def steps_per_epoch(self, num_images: int) -> int:
        return max(1, num_images // self.batch_size)

    def validation_steps(self, num_images: int) -> frozenset[int]:
        """The steps, counted from 1, after which the network is validated."""
        num_steps = self.num_steps(num_images)
        marks = (max(1, round(fraction * num_steps)) for fraction in self.validate_at)
        epochs = range(0, num_steps, self.steps_per_epoch(num_images))
        return frozenset({*marks, *epochs[1:], num_steps})


@cache
def recipe_table() -> dict[str, dict[str, Any]]:
    """recipes.toml: name -> fields."""
    return tomllib.loads(Path(__file__).with_name("recipes.toml").read_text(encoding="utf-8"))


def find_recipe(name_or_path: str, changes: dict[str, Any] | None = None) -> Recipe:
    """The recipe of that name or in that TOML file, with some fields changed.

    Raises ``BadInputError`` with the nearest names, or ``SpecError`` naming a field that cannot be."""
    path = Path(name_or_path)
    if path.suffix.lower() == ".toml":
        fields, where = read_toml(path), f"{path}: "
    elif name_or_path in recipe_table():
        fields, where = recipe_table()[name_or_path], "recipe: "
    else:
        raise unknown_name("recipe", name_or_path, recipe_table(), "--recipe")
    return validate(Recipe, {**fields, **(changes or {})}, where)
