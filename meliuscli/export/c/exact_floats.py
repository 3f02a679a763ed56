"""Float parts of a chain in NumPy as its C library runs them: with one rounding a multiply-add, in the order of ``kernels.c``. Maps
are (N, rows, columns, channels) of float32."""

from __future__ import annotations

from typing import Any

import numpy as np

from meliuscli.export.c.chain import FloatStep, ShortcutStep
from meliuscli.packed.program import Array


def fma(a: Array, b: Any, c: Any) -> Array:
    """a * b + c in float32 with one rounding: in double the product is exact and the sum rounds once, to the odd neighbour
    where it was inexact, and then to float32 as the exact sum would (Boldo and Melquiond, 2008)."""
    product, third = a.astype(np.float64) * b, c.astype(np.float64)
    total = product + third
    part = total - product
    error = (product - (total - part)) + (third - part)
    bits = total.view(np.int64)
    inexact = (error != 0) & (bits & 1 == 0)
    bits += np.where(inexact, np.where((error > 0) == (total > 0), 1, -1), 0)
    rounded: Array = total.astype(np.float32)
    return rounded


def run_shortcut(step: ShortcutStep, x: Array) -> Array:
    """Pooling, clipping, a 1x1 convolution: what there is of these."""
    if step.pools:
        x = _average(x)
    if step.clips:
        inside = np.clip(x, np.float32(-1), np.float32(1))
        x = fma(x - inside, np.float32(0.1), inside)
    return x if step.weight is None else linear(x, step.weight) + step.bias


def run_float_conv(step: FloatStep, x: Array, old: Array | None) -> Array:
    """A tap after the other, all channels of each."""
    outputs, inputs, kernel, _ = step.weight.shape
    edge, size = kernel // 2, step.out_size
    padded = np.pad(x, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
    out = np.broadcast_to(step.bias, (len(x), size, size, outputs)).copy()
    for ky in range(kernel):
        for kx in range(kernel):
            seen = padded[:, ky :: step.stride, kx :: step.stride][:, :size, :size]
            for channel in range(inputs):
                out = fma(seen[..., channel, None], step.weight[:, channel, ky, kx], out)
    if step.adds:
        assert old is not None
        out = out + old
    return np.maximum(out, np.float32(0)) if step.relu else out


def _average(x: Array) -> Array:
    """2x2, what there is of it at an odd edge: in whole and half counts, so that the division is exact."""
    size = x.shape[1]
    total = np.zeros((len(x), -(-size // 2), -(-size // 2), x.shape[3]), np.float32)
    counted = np.zeros(total.shape[1:3], np.float32)
    for place in range(4):
        part = x[:, place // 2 :: 2, place % 2 :: 2]
        total[:, : part.shape[1], : part.shape[2]] += part
        counted[: part.shape[1], : part.shape[2]] += 1
    return total * (np.float32(1) / counted)[..., None]


def linear(x: Array, weight: Array) -> Array:
    """(..., inputs) and (outputs, inputs) -> (..., outputs), an input after the other."""
    out = np.zeros((*x.shape[:-1], len(weight)), np.float32)
    for channel in range(x.shape[-1]):
        out = fma(x[..., channel, None], weight[:, channel], out)
    return out
