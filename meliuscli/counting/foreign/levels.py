"""How many values there are among numbers, but for rounding: distinct ones that come again, or steps of an even grid."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MANY = 1 << 16
"""Levels of numbers that are those of a float."""

FEW, EXACT = 256, 1e-5
_ROUNDED, _ON_GRID = 1e-6, 2e-3
"""How near two values are the same one, as a share of the larger (``EXACT``) and of what is usual among them (never of the
largest of all: beside an outlier all others were one), and how near to a step of a grid they lie on it."""


def levels_of(values: Tensor) -> int:
    return levels_among(*distinct_in(values), len(values))


def levels_among(distinct: list[float], times: list[int], size: int) -> int:
    """Distinct values, where most of them come again; else the steps of an even grid that all lie on: what came once
    among many zeros, or at a bound, says that there are others. 0 for too few to say."""
    number, single = len(distinct), times.count(1)
    if number == 1 and size > 1:
        return 1
    if number > FEW:
        return MANY
    if (number < 8 and size < 4 * number) or (number == 2 and single and 0.0 in distinct):
        return 0
    if size >= 4 * number and number >= 4 * single:
        return number
    return steps_of(distinct)


def distinct_in(values: Tensor) -> tuple[list[float], list[int]]:
    """The values (up to 257, in order) and how often each is there. Equal but for rounding is equal."""
    if len(values) > 4 * FEW and len(few := distinct_in(values[::4])[0]) > FEW:
        return few, []
    ordered = values.sort().values
    sizes = ordered.abs()
    usual = max(float(sizes[len(ordered) // 4]), float(sizes[-1 - len(ordered) // 4]))
    limit = EXACT * sizes[1:] + _ROUNDED * (usual or float(sizes.max()))
    starts = torch.cat([torch.ones(1, dtype=torch.bool), ordered.diff() > limit]).nonzero().flatten()
    ends = torch.cat([starts[1:], torch.tensor([len(ordered)])])
    return ordered[starts[: FEW + 1]].tolist(), (ends - starts)[: FEW + 1].tolist()


def steps_of(distinct: list[float]) -> int:
    """Levels of the coarsest even grid of up to 256 that the values lie on, else ``MANY``. Any three lie on some."""
    low, high = distinct[0], distinct[-1]
    share = (torch.tensor(distinct, dtype=torch.float64) - low) / (high - low)
    most = FEW if len(distinct) > 3 else 3
    fewest = min(math.ceil(0.99 / float(share.diff().min())), most)  # any two are a step apart
    steps = torch.arange(fewest, most)[:, None]
    for values in (share[:: max(1, len(share) // 8)], share):
        at = steps * values
        steps = steps[((at - at.round()).abs() <= _ON_GRID).all(1)]
    return int(steps[0, 0]) + 1 if len(steps) else MANY
