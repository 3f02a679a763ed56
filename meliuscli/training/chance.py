"""What guessing would give."""

from __future__ import annotations

import math


def chance_limit(num_classes: int, num_images: int) -> float:
    """The top-1 (0 to 1) on ``num_images`` images up to which a network is no better than guessing: chance and three
    standard deviations."""
    chance = 1 / num_classes
    return chance + 3 * math.sqrt(chance * (1 - chance) / num_images)
