"""How a network is trained: a frozen value."""

from __future__ import annotations

import json
import tomllib
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from meliuscli.arch.spec import read_toml, validate
from meliuscli.data.splits import Cut
from meliuscli.errors import SpecError, unknown_name

# Bounded, so that no typo plans more steps than can be laid out, or overflows in a product.
Positive = Annotated[float, Field(gt=0, le=1e30, allow_inf_nan=False)]
Epochs = Annotated[float, Field(gt=0, le=10_000, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(gt=0, le=1)]


class Recipe(BaseModel):
    """A cosine from ``learning_rate`` to 0 over all steps. The defaults are MeliusNet's own recipe.

    ``betas`` and ``eps`` are for RAdam, Adam and AdamW, ``momentum`` (Nesterov's) for SGD. ``weight_decay`` is on all
    parameters; with ``adamw`` it is decoupled from the gradient. ``max_gradient_norm`` scales longer gradients down to
    this norm. A batch goes through the network in ``accumulate`` parts, for less memory; batch norm sees the parts.

    ``sign_gradient`` is that of the activations' signs in MeliusNet, BinaryDenseNet and ResNetE (other families have
    their papers' own): ``clip`` passes it where |x| <= ``clip_threshold``, ``approx`` is Bi-Real Net's.

    ``ema_decay`` d averages weights and batch norm's statistics over about 1 / (1 - d) steps; the averages are what is
    evaluated and saved. ``distill_weight`` w makes the loss (1 - w) cross-entropy + w T^2 KL(teacher || student) of
    logits divided by T = ``distill_temperature`` (arXiv 1503.02531, section 2). ``precision`` is that of the forward and
    backward pass; weights, statistics, optimiser and evaluation are float32, and ``auto`` is what is faster on the
    machine.

    Training images are mirrored (``flip``) and moved by up to ``shift`` pixels. With ``crop_scale`` (``[0.08, 1.0]`` is
    usual for ImageNet) a rectangle of that share of the area is cut out and resized in place of the shift.

    Validation is ``validation_share`` of each class of the training images, at most ``validation_per_class``, drawn from
    ``split_seed``, which is not the seed of a training: all seeds of a recipe see the same splits. ``validate_at`` are
    fractions of the whole training after which to validate too, besides every epoch and the end."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    epochs: Epochs = 120.0
    batch_size: Annotated[int, Field(strict=True, ge=1, le=65_536)] = 64
    optimizer: Literal["radam", "adam", "adamw", "sgd"] = "radam"
    learning_rate: Positive = 0.002
    betas: tuple[Fraction, Fraction] = (0.95, 0.999)
    eps: Positive = 1e-5
    momentum: Fraction = 0.9
    weight_decay: Annotated[float, Field(ge=0, le=1e30, allow_inf_nan=False)] = 0.0
    max_gradient_norm: Positive | None = None
    label_smoothing: Fraction = 0.0
    accumulate: Annotated[int, Field(strict=True, ge=1)] = 1
    sign_gradient: Literal["clip", "approx"] = "clip"
    clip_threshold: Positive = 1.3
    ema_decay: Fraction | None = None
    distill_weight: Annotated[float, Field(ge=0, le=1)] = 0.0
    distill_temperature: Positive = 4.0
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    flip: bool = True
    shift: Annotated[int, Field(strict=True, ge=0, le=64)] = 2
    crop_scale: tuple[Share, Share] | None = None

    split_seed: Annotated[int, Field(strict=True, ge=0, lt=2**32)] = 0
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    validation_per_class: Annotated[int, Field(strict=True, ge=1, le=10**9)] = 500
    validate_at: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = ()

    @property
    def cut(self) -> Cut:
        """How validation is cut from train, where the data set has none of its own."""
        return Cut(self.split_seed, self.validation_share, self.validation_per_class)

    @field_validator("crop_scale")
    @classmethod
    def _ordered(cls, shares: tuple[float, float] | None) -> tuple[float, float] | None:
        if shares is not None and shares[0] > shares[1]:
            raise ValueError("the first share must not be above the second")
        return shares

    @model_validator(mode="after")
    def _parts_have_images(self) -> Self:
        if self.accumulate > self.batch_size:
            raise SpecError("accumulate", f"must be at most the batch size, {self.batch_size}, not {self.accumulate}")
        return self

    def to_toml(self) -> str:
        """TOML text of every field that has a value, from which ``find_recipe`` makes an equal recipe."""
        values = self.model_dump(mode="json", exclude_none=True)
        return "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())

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
        raise unknown_name("recipe", name_or_path, recipe_table())
    return validate(Recipe, {**fields, **(changes or {})}, where)
