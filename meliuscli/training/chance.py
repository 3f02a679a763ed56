"""What guessing would give."""

from __future__ import annotations

import math
from functools import cache

TAIL = 0.00135
"""How seldom a guesser may be taken for a network that has learned: the one-sided tail of three standard deviations."""


@cache
def chance_limit(num_classes: int, num_images: int) -> int:
    """So many right answers on ``num_images`` images, or fewer, cannot be told from guessing: the most that guessing reaches with
    a probability of ``TAIL`` or more, by the binomial distribution."""
    if num_classes < 2:
        return num_images
    right, wrong = -math.log(num_classes), math.log1p(-1 / num_classes)
    tail, number = 0.0, num_images + 1
    while tail < TAIL:
        number -= 1
        ways = math.lgamma(num_images + 1) - math.lgamma(number + 1) - math.lgamma(num_images - number + 1)
        tail += math.exp(ways + number * right + (num_images - number) * wrong)
    return number


def is_at_chance(top1: float, num_classes: int, num_images: int) -> bool:
    """Can a top-1 (0 to 1) on ``num_images`` images not be told from guessing?"""
    return round(top1 * num_images) <= chance_limit(num_classes, num_images)


def at_chance_text(top1: float, num_classes: int, num_images: int) -> str:
    """What is said of such a top-1."""
    limit = chance_limit(num_classes, num_images)
    return (
        f"validation top-1 {100 * top1:.2f} % cannot be told from chance with {num_images:,} images (the limit is"
        f" {limit:,} right, {100 * limit / num_images:.2f} %)"
    )
