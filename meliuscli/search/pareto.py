"""Pareto arithmetic for two objectives: cost to be low, accuracy to be high. Pure Python."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

Point = tuple[float, float]
"""(cost, accuracy)."""


def front(points: Sequence[Point]) -> list[int]:
    """Indices of the points that no other beats, cheapest first; of equal points the first counts.

    A point is beaten by one that costs no more and is no less accurate, and differs."""
    order = sorted(range(len(points)), key=lambda index: (points[index][0], -points[index][1], index))
    best, kept = float("-inf"), []
    for index in order:
        if points[index][1] > best:
            best = points[index][1]
            kept.append(index)
    return kept


def hypervolume(points: Sequence[Point], max_cost: float, min_accuracy: float) -> float:
    """The area that the points dominate up to ``max_cost`` and above ``min_accuracy``."""
    inside = [point for point in points if point[0] < max_cost and point[1] > min_accuracy]
    steps = [inside[index] for index in front(inside)]
    steps.append((max_cost, min_accuracy))
    return sum((after[0] - cost) * (accuracy - min_accuracy) for (cost, accuracy), after in pairwise(steps))
