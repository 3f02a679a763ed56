"""How much the area under a Pareto front is expected to grow by a candidate of known cost and believed accuracy.

The cost of a candidate is known exactly, so this has a closed form: the sum, over the steps of the present front, of the
step's width times the expected improvement over its height. Numpy only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from meliuscli.search.pareto import Point, front
from meliuscli.search.ridge import Array


def expected_gain(points: Sequence[Point], costs: Array, mean: Array, deviation: Array, max_cost: float) -> Array:
    """Expected growth of the area under the front of ``points``, up to ``max_cost``, for candidates of exactly known
    ``costs`` and normally distributed accuracies."""
    steps = [points[index] for index in front(points)]
    floor = min((accuracy for _, accuracy in points), default=0.0)
    starts = np.array([0.0, *(cost for cost, _ in steps)])
    ends = np.array([*starts[1:], max_cost])
    heights = np.array([floor, *(accuracy for _, accuracy in steps)])
    widths = np.clip(ends[None] - np.maximum(starts[None], costs[:, None]), 0, None)
    return np.asarray((widths * _expected_improvement(mean[:, None], deviation[:, None], heights[None])).sum(1))


def expected_answers(
    points: Sequence[Point], costs: Array, mean: Array, deviation: Array, asked: Sequence[float], floor: float
) -> Array:
    """Expected growth of the best accuracy within each of the costs that are ``asked`` for, on average; ``points`` are
    what answers so far, and ``floor`` counts where nothing does."""
    growth = np.zeros(len(costs))
    for limit in asked:
        best = max((accuracy for cost, accuracy in points if cost <= limit), default=floor)
        growth += np.where(costs <= limit, _expected_improvement(mean, deviation, np.asarray(best)), 0.0) / len(asked)
    return growth


def _expected_improvement(mean: Array, deviation: Array, height: Array) -> Array:
    deviation = np.maximum(deviation, 1e-9)
    z = (mean - height) / deviation
    density = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    return np.maximum((mean - height) * _normal_cdf(z) + deviation * density, 0)


_ERFC = (-1.26551223, 1.00002368, 0.37409196, 0.09678418, -0.18628806, 0.27886807, -1.13520398, 1.48851587)
_ERFC_END = (-0.82215223, 0.17087277)


def _normal_cdf(z: Array) -> Array:
    """By a Chebyshev fit of the complementary error function, whose relative error is below 1.2e-7 everywhere
    (Numerical Recipes, section 6.2), as numpy has none."""
    x = np.abs(z) / math.sqrt(2)
    t = 1 / (1 + 0.5 * x)
    tail = 0.5 * t * np.exp(-(x**2) + np.polynomial.polynomial.polyval(t, (*_ERFC, *_ERFC_END)))
    return np.where(z > 0, 1 - tail, tail)
