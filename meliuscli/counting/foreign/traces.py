"""What the values of a storage are made of: weights alone or the input, signs, other steps, or sums."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import torch
from torch import Tensor

from meliuscli.counting.foreign.statements import Stated

_SIGNS = re.compile(r"(sign|sgn|copysign|heaviside|bernoulli|[gl][et])_?")
_ROUNDS = re.compile(r"(round|floor|ceil|trunc|floor_divide|remainder|fmod)_?|fake_quantize_\w*")
_SUMS = re.compile(r"sum|mean|\w*(avg_pool|softmax|layer_norm)\w*|grid_sampler\w*|upsample_\w*(linear|cubic)\w*")
_KEEPS = re.compile(r"clone|_to_copy|cat|\w*pad\w*|max_pool\w*|im2col|index(_select)?|gather|dequantize|_unsafe_view")
"""Operations that make signs, that make other steps, that add up, and whose results have the values of their operand, in
other places."""


class Values(IntEnum):
    """Sums take as many values as happens, until something makes steps or signs of them."""

    UNKNOWN, SUMS, STEPS, SIGNS = range(4)


class Trace(NamedTuple):
    """Of a storage. ``is_moving``: made of the network's input, else of its tensors ``roots`` alone; ``stated`` by a
    quantizer; ``is_spread``: weights multiplied one by one, each with activations that several share."""

    is_moving: bool = False
    roots: tuple[int, ...] = ()
    stated: Stated | None = None
    values: Values = Values.UNKNOWN
    is_spread: bool = False


def made_by(
    func: Any, traces: Sequence[Trace], roots: tuple[int, ...], outputs: Sequence[Tensor], is_product: bool
) -> Trace:
    """The trace of what an operation returns."""
    name = func._schema.name.partition("::")[2]
    keeps = _KEEPS.fullmatch(name) is not None
    is_moving = any(trace.is_moving for trace in traces)
    stated = next((trace.stated for trace in traces if trace.stated), None) if keeps else None
    before = [trace.values for trace in traces]
    values = Values.SUMS if is_product else _values(func, name, keeps, before, outputs)
    return Trace(is_moving, () if is_moving else roots, stated, values)


def _values(func: Any, name: str, keeps: bool, before: Sequence[Values], outputs: Sequence[Tensor]) -> Values:
    """What is made of signs, scaled or passed on, is signs; of two kinds of them or in other steps it may not be."""
    if _SIGNS.fullmatch(name) or (keeps and set(before) == {Values.SIGNS}):
        return Values.SIGNS
    if _SUMS.fullmatch(name):
        return Values.SUMS
    if _ROUNDS.fullmatch(name) or func._overloadname.endswith("_mode"):
        return Values.STEPS
    if torch.Tag.pointwise in func.tags and before.count(Values.SIGNS) == 1:
        return Values.SIGNS
    if any(t.element_size() == 1 or not (t.is_floating_point() or t.is_complex()) for t in outputs):
        return Values.STEPS
    return min(max(before, default=Values.UNKNOWN), Values.STEPS)
