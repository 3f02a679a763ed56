"""Batch norm folded: into thresholds that sign as torch does to the last bit, into weights, or into scale and shift."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from meliuscli.packed.program import Array

Part = TypeVar("Part", bound=nn.Module)
_TOP = 0x7F7FFFFF
"""The bits of the largest finite float: floats in order are integers in order."""


@torch.no_grad()
def thresholds(norm: nn.Module, channels: int) -> tuple[Array, Array]:
    """(values, flips) a channel such that norm(x) >= 0 exactly where (x >= value) != flip, for every finite float x.

    Batch norm in eval mode (or another shift before a sign) rounds, but it is monotone; so the x at which its sign changes is found by bisection over all
    floats, with torch's own arithmetic: no formula could be off by one in the last place."""
    high = torch.full((channels,), _TOP, dtype=torch.int64)
    low = -high - 1  # below every finite float: not above any threshold
    flips = _sign(norm, _float(high)) < _sign(norm, _float(-high))
    never = _sign(norm, _float(high)) == flips
    for _ in range(33):
        middle = (low + high) // 2
        above = _sign(norm, _float(middle)) != flips
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    values = torch.where(never, torch.nan, _float(high))  # nothing is >= NaN
    return values.numpy().astype(np.float32), flips.numpy()


def _float(order: Tensor) -> Tensor:
    """The float32 at a place in the order of all floats, 0 for both zeros."""
    bits = torch.where(order >= 0, order, -order | -(2**31))
    return bits.to(torch.int32).view(torch.float32)


def _sign(norm: nn.Module, x: Tensor) -> Tensor:
    normed: Tensor = norm(x[None, :, None, None])
    return normed[0, :, 0, 0] >= 0


@torch.no_grad()
def scale_and_shift(norm: nn.BatchNorm2d) -> tuple[Array, Array]:
    """norm(x) = scale * x + shift, up to rounding."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    shift = norm.bias.double() - norm.running_mean.double() * scale
    return scale.numpy().astype(np.float32), shift.numpy().astype(np.float32)


@torch.no_grad()
def folded_conv(conv: nn.Conv2d, norm: nn.BatchNorm2d | None) -> tuple[Array, Array]:
    """(weights, bias) of a convolution with the batch norm behind it."""
    weight = conv.weight.double().numpy()
    if norm is None:
        return weight.astype(np.float32), np.zeros(len(weight), np.float32)
    scale, shift = scale_and_shift(norm)
    return (weight * scale.astype(np.float64)[:, None, None, None]).astype(np.float32), shift


def linear_of(fc: nn.Linear) -> tuple[Array, Array]:
    """(weights, bias) of a linear layer."""
    return fc.weight.detach().numpy().copy(), fc.bias.detach().numpy().copy()


def part(network: nn.Module, name: str, kind: type[Part]) -> Part:
    """The module of this name, which is of this kind."""
    module = network.get_submodule(name)
    assert isinstance(module, kind)
    return module
