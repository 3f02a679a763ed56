"""How many values an operand takes: what a tensor that torch multiplied says about its bits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from meliuscli.counting.counts import FLOAT_BITS
from meliuscli.counting.foreign.levels import EXACT, FEW, MANY, distinct_in, levels_among, levels_of, steps_of

OF_SUMS = MANY + 1
"""Of sums since which nothing has made steps: they take as many values as happens."""

_ROWS, _COLUMNS, _WHOLE = 32, 512, 4096
_STEPS = 32
"""Of a float type itself: a range of fewer has few values because of the type."""
_TINY = torch.finfo(torch.float32).tiny
_RARE, _AMPLE, _SPARSE = 0.01, 0.25, 0.1
"""Zeros up to this share beside two values are torch's sign of zero by chance; of two values the rarer one has at least
this share, or a third may have been missed."""


@dataclass(frozen=True, slots=True)
class Seen:
    """``levels``: distinct values (1 to 256), ``MANY`` for those of a float, 0 where there is nothing, or too little, to
    look at.
    ``signed``: two values, and zero as a third. ``thin``: two values of which a third may have been missed."""

    levels: int = 0
    signed: bool = False
    thin: bool = False

    @property
    def bits(self) -> int:
        """One value or none is evidence of nothing."""
        widths = ((1, 0), (2, 1), (4, 2), (16, 4), (FEW, 8))
        return next((bits for most, bits in widths if self.levels <= most), FLOAT_BITS) or FLOAT_BITS

    def __or__(self, other: Seen) -> Seen:
        """Of two calls the one that says more."""
        return max(self, other, key=lambda seen: (seen.bits if seen.levels > 1 else 0, seen.thin, seen.levels))


def seen_values(rows: Tensor | None, is_weight: bool) -> Seen:
    """Of an operand as rows, each of which may have a scale of its own (output channels, or tokens).

    Values count over the whole and row by row; the fewer decide. A weight that is a scale a row times a scale a column
    times signs takes two values. Rows that are copies (of weights in another order too) are no more evidence than one:
    tokens that come again, a blur, what makes a map larger. Samples of random places, the same each time, stand for
    large operands."""
    if rows is None or rows.is_meta or rows.layout != torch.strided or not rows.numel():
        return Seen()
    if rows.element_size() == 1 or rows.is_complex() or rows.is_quantized:
        return Seen()
    seen = _seen(rows, is_weight)
    if rows.dim() < 2 or not 1 < seen.levels < MANY:
        return seen
    own = _own_rows(rows, is_weight)
    if len(own) == min(len(rows), _ROWS) or (len(own) > 1 and seen.levels == 2):  # of two values few rows can be made
        return seen
    return Seen() if is_weight and len(own) == 1 else _seen(rows[own], is_weight)


def _own_rows(rows: Tensor, is_weight: bool) -> Tensor:
    part = _part_of(rows)
    _, lines = torch.unique(part.sort(1).values if is_weight else part, dim=0, return_inverse=True)
    return _places(len(rows), _ROWS)[list(dict(zip(lines.tolist(), range(len(lines)), strict=True)).values())]


def _seen(rows: Tensor, is_weight: bool) -> Seen:
    part = _part_of(rows)
    low, high = map(float, part.aminmax())
    if not math.isfinite(high - low):
        return Seen()
    if 0 < high - low <= _STEPS * _digit(rows.dtype) * max(high, -low):  # a type of few digits
        return Seen(MANY)
    if is_weight and low < 0 < high and _is_scaled_sign(part):
        return Seen(2)
    by_row = _levels_of_rows(part)
    if by_row == 1:  # signs that are all alike: of a network that was not trained
        return Seen(1)
    if not is_weight and by_row in (0, MANY) and levels_of(_sample(rows)) == MANY:
        return Seen(MANY)
    if is_weight:
        readings = [by_row, *_levels_with_scales(rows)]
    else:
        rows = _own_lines(rows)
        readings = [_levels_of_rows(_part_of(rows))]
    return _of_whole(rows, is_weight, min((levels for levels in readings if levels > 1), default=0))


def _of_whole(rows: Tensor, is_weight: bool, fewest: int) -> Seen:
    """``fewest``: levels where each row has a scale of its own."""
    values = _sample(rows)
    distinct, times = distinct_in(values)
    levels = levels_among(distinct, times, len(values))
    is_signed = len(distinct) == 3 and max(abs(distinct[0] + distinct[2]), abs(distinct[1])) <= EXACT * distinct[2]
    if is_signed and times[1] <= _RARE * len(values):
        return Seen(2)
    zeros = dict(zip(distinct, times, strict=False)).get(0.0, 0)
    if is_weight and not is_signed and zeros > (1 - _SPARSE) * len(values):  # an identity, or a filter a channel
        return Seen(MANY)
    thin = levels == 2 and not is_weight and _is_part_of_four(distinct, min(times) / len(values))
    if levels in (0, MANY) or 0 < fewest < levels:
        return Seen(fewest or levels)
    return Seen(levels, is_signed, thin)


def kernel_id(rows: Tensor | None) -> int:
    """The same for the same weights, transposed ones too."""
    if rows is None:
        return 0
    flat = rows.detach().flatten(1).double() if rows.dim() > 1 else rows.detach().double()[None]
    sums = [tuple((1000 * flat.sum(dim)).round().sort().values.tolist()) for dim in (0, 1)]
    return hash(frozenset(sums))


def _is_part_of_four(distinct: list[float], rarer: float) -> bool:
    """Can two values be those of two bits that occur here? Not -1 and 1, nor two of which both are frequent; but other
    opposite ones are the middle of four steps too."""
    is_sign, is_opposite = (
        abs(distinct[0] + one) + abs(distinct[-1] - one) <= 2 * EXACT * one for one in (1, abs(distinct[-1]))
    )
    return not is_sign and (is_opposite or rarer < _AMPLE)


def _part_of(rows: Tensor) -> Tensor:
    flat = rows.flatten(1) if rows.dim() > 1 else rows[None]
    return flat[_places(flat.shape[0], _ROWS)][:, _places(flat.shape[1], _COLUMNS)].float().cpu()


def _sample(rows: Tensor) -> Tensor:
    return rows.flatten()[_places(rows.numel(), _WHOLE)].float().cpu()


@lru_cache(256)
def _places(size: int, most: int) -> Tensor:
    """All places in order, or ``most`` of them: one at random, the same each time, of each part of equal length."""
    if size <= most:
        return torch.arange(size)
    jitter = torch.rand(most, generator=torch.Generator().manual_seed(size), dtype=torch.float64)
    return ((torch.arange(most) + jitter) * (size / most)).long().clamp(max=size - 1)


def _is_scaled_sign(part: Tensor) -> bool:
    """Are the absolute values a number a row times a number a column?"""
    if min(part.shape) < 2 or part.numel() < 8:
        return False
    for some in (part[:2], part):  # two rows tell most that are not
        size = some.abs()
        cross = size[:, :1] * size[:1]
        if not bool(((size * size[0, 0] - cross).abs() <= 1e-4 * cross).all()):
            return False
    return bool((part != 0).all())


def _digit(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps if dtype.is_floating_point else 0.0


def _levels_of_rows(part: Tensor) -> int:
    """The most levels of a row; 0 where those of one cannot be told."""
    levels = 0
    for row in part:
        of_row = levels_of(row)
        levels = max(levels, of_row)
        if of_row in (0, MANY):
            return of_row
    return levels


def _levels_with_scales(weights: Tensor) -> Iterator[int]:
    """Of weights in shares of the largest of their row, and with a scale for each so many in a row: readings of which
    the fewest levels decide."""
    rows = weights.flatten(1) if weights.dim() > 1 else weights[None]
    some = rows[_places(len(rows), max(8, _WHOLE // rows.shape[1]))].float().cpu()
    yield _levels_of_shares(some)
    few, _ = distinct_in(some[0, :32])
    if len(few) > 24 and steps_of(few) == MANY:  # floats, whatever the scales
        return
    for size in (128, 64, 32):
        if rows.shape[1] > size and not rows.shape[1] % size:
            groups = some.reshape(-1, size)
            yield from (_levels_of_shares(groups), _levels_of_rows(_part_of(groups)))


def _levels_of_shares(rows: Tensor) -> int:
    if int(rows.count_nonzero()) < 3 * len(rows):  # in shares of itself any number is one
        return 0
    return levels_of(_sample(rows / rows.abs().amax(1, keepdim=True).clamp(min=_TINY)))


def _own_lines(rows: Tensor) -> Tensor:
    """Maps, channel by channel, without the lines that say nothing: zero in all of them at a side (padding), or copies of
    the line before (a map that was made larger)."""
    for dim in range(2, rows.dim()):
        filled = (rows != 0).transpose(0, dim).flatten(1).any(1).nonzero()
        if len(filled):
            rows = rows.narrow(dim, int(filled[0]), int(filled[-1] - filled[0]) + 1)
        changes = (rows.diff(dim=dim) != 0).transpose(0, dim).flatten(1).any(1)
        rows = rows.index_select(dim, torch.cat([changes.new_ones(1), changes]).nonzero().flatten())
    return rows
