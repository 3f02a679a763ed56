"""How a network is trained: a frozen value."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from meliuscli.errors import unknown_name

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class Recipe(BaseModel):
    """RAdam with a cosine from ``learning_rate`` to 0 over all steps. The defaults are MeliusNet's own recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    epochs: Positive = 120.0
    batch_size: Annotated[int, Field(strict=True, ge=1)] = 64
    learning_rate: Positive = 0.002
    betas: tuple[Fraction, Fraction] = (0.95, 0.999)
    eps: Positive = 1e-5
    clip_threshold: Positive = 1.3
    flip: bool = True
    shift: Annotated[int, Field(strict=True, ge=0, le=64)] = 2

    def num_steps(self, num_images: int) -> int:
        """Optimiser steps in all; an epoch is the whole batches in ``num_images``."""
        return max(1, round(self.epochs * self.steps_per_epoch(num_images)))

    def steps_per_epoch(self, num_images: int) -> int:
        return max(1, num_images // self.batch_size)


RECIPES = {
    # Table of the authors' logged commands: RAdam 0.95/0.999, 0.002 cosine to 0, 120 epochs, batch 64, clip 1.3.
    "paper": Recipe(),
    # For at most a few epochs: RAdam's warm-up is as long as 1 / (1 - beta2) steps, so a short run needs a smaller
    # beta2, and latent weights have to move fast to flip at all.
    "short": Recipe(epochs=3.0, batch_size=50, learning_rate=0.05, betas=(0.9, 0.99)),
}


def find_recipe(name: str) -> Recipe:
    """The recipe of that name. Raises ``BadInputError`` with the nearest names."""
    if name not in RECIPES:
        raise unknown_name("recipe", name, RECIPES, "--recipe")
    return RECIPES[name]
