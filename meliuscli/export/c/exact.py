"""A chain run in NumPy as its C library runs it, to the last bit: signs and whole numbers, and float parts with one rounding a
multiply-add, in the order of ``kernels.c``. Slow, and of no use but to say what the library must answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from meliuscli.export.c.chain import (
    IMAGE,
    LOGITS,
    BinaryStep,
    Chain,
    ChainStep,
    FloatStep,
    HeadStep,
    ShortcutStep,
    SignStep,
    SignTable,
    StemConv,
    StemStep,
)
from meliuscli.export.c.exact_floats import fma, linear, run_float_conv, run_shortcut
from meliuscli.packed.program import Array

Maps = dict[str, Array]
"""(N, rows, columns, channels) by name: float32, or booleans for signs; the image as (N, channels, rows, columns)."""


@dataclass(frozen=True, slots=True)
class Ran:
    """``logits`` (N, classes); ``counts`` the whole numbers of each binary layer, (N, rows, columns, outputs)."""

    logits: Array
    counts: dict[str, Array]


Corrected = Callable[[ChainStep, Maps], None]
"""May put other maps in place of what the steps before have made."""


def run_chain(chain: Chain, images: Array, before: Corrected = lambda *_: None) -> Ran:
    """(N, channels, rows, columns) float32; ``before`` is called before every step."""
    maps: Maps = {IMAGE: images.astype(np.float32)}
    counts: dict[str, Array] = {}
    for step in chain.steps:
        before(step, maps)
        if isinstance(step, StemStep):
            maps[step.target] = run_stem(step, maps[IMAGE])
        elif isinstance(step, SignStep):
            x = maps[step.source]
            maps[step.target] = _signs(x.reshape(len(x), 1, 1, -1) if step.source == IMAGE else x, step.signs)
        elif isinstance(step, ShortcutStep):
            maps[step.target] = run_shortcut(step, maps[step.source])
        elif isinstance(step, FloatStep):
            maps[step.target] = run_float_conv(step, maps[step.source], maps.get(step.target))
        elif isinstance(step, HeadStep):
            maps[step.target] = run_linear(step, head_inputs(step, maps[step.source]))
        elif isinstance(step, BinaryStep):
            counts[step.name] = numbers = _numbers(step, maps[step.source])
            maps[step.target] = _behind(step, numbers, maps.get(step.target))
    return Ran(maps[LOGITS].reshape(len(images), -1), counts)


def _signs(x: Array, table: SignTable) -> Array:
    above = x >= (0 if table.values is None else table.values)
    flipped: Array = above ^ table.flip_bits()
    return flipped


def run_stem(step: StemStep, images: Array) -> Array:
    """(N, channels, rows, columns) images -> the map, or the signs, behind a stem."""
    x = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    if step.before is not None:
        x = fma(x, *step.before)
    if step.convs[0].scale is not None:
        x = nearest(x)
    for conv in step.convs:
        x = _plane_conv(conv, x) if conv.scale is None else _int8_conv(conv, x)
    if step.pools:
        x = _max_pool(x, 3, step.pooling.border(x.shape[1]))
    if step.behind is not None:
        x = fma(x, *step.behind)
    return x if step.signs is None else _signs(x, step.signs)


def nearest(x: Array) -> Array:
    """The nearest whole number from -127 to 127, of two that are as near the even one."""
    whole: Array = np.round(np.clip(x, np.float32(-127), np.float32(127)))
    return whole


def _int8_conv(conv: StemConv, x: Array) -> Array:
    assert conv.scale is not None
    assert 127**2 * conv.weight[0].size < 2**24  # which float32 is exact up to
    seen = torch.from_numpy(np.ascontiguousarray(x)).permute(0, 3, 1, 2)
    weight, border = torch.from_numpy(conv.weight.astype(np.float32)), conv.window.border(x.shape[1]) * 2
    sums = F.conv2d(F.pad(seen, border), weight, stride=conv.stride, groups=conv.groups).permute(0, 2, 3, 1)
    whole = nearest(fma(sums.round().numpy(), conv.scale, conv.bias))
    return np.maximum(whole, np.float32(0)) if conv.relu else whole


def _plane_conv(conv: StemConv, x: Array) -> Array:
    outputs, inputs, kernel, _ = conv.weight.shape
    border, width = conv.window.border(x.shape[1]), outputs // conv.groups
    rows = conv.window.out_size(x.shape[1])
    padded = np.pad(x, ((0, 0), border, border, (0, 0)))
    out = np.broadcast_to(conv.bias, (len(x), rows, rows, outputs)).copy()
    seen = np.arange(outputs) // width * inputs
    across = [slice(kx, kx + (rows - 1) * conv.stride + 1, conv.stride) for kx in range(kernel)]
    for row in range(rows):  # one at a time, which stays in the cache
        for channel in range(inputs):
            for ky in range(kernel):
                line = padded[:, row * conv.stride + ky][..., seen + channel if conv.groups > 1 else [channel]]
                for kx in range(kernel):
                    out[:, row] = fma(line[:, across[kx]], conv.weight[:, channel, ky, kx], out[:, row])
    return np.maximum(out, np.float32(0)) if conv.relu else out


def _max_pool(x: Array, kernel: int, border: tuple[int, int] = (0, 0)) -> Array:
    """With stride 2; what lies outside is never the largest."""
    tensor = torch.from_numpy(np.ascontiguousarray(x)).permute(0, 3, 1, 2).double()
    tensor = F.pad(tensor, border * 2, value=float("-inf"))
    pooled: Array = F.max_pool2d(tensor, kernel, 2).permute(0, 2, 3, 1).numpy().astype(x.dtype)
    return pooled


def head_inputs(step: HeadStep, x: Array) -> Array:
    """What the linear layer sees: (N, inputs)."""
    flat = x.reshape(len(x), -1, x.shape[3])
    if step.relu:
        flat = np.maximum(flat, np.float32(0))
    if step.averages:
        total = np.zeros((len(x), x.shape[3]), np.float32)
        for pixel in range(flat.shape[1]):
            total += flat[:, pixel]
        flat = total * np.float32(1.0 / flat.shape[1])
    return flat.reshape(len(x), -1)


def run_linear(step: HeadStep, inputs: Array) -> Array:
    """(N, inputs) -> (N, classes)."""
    if step.steps is None:
        return linear(inputs, step.weight) + step.bias
    seen = nearest(fma(inputs, np.float32(step.inverse), np.float32(0)))
    sums = seen.astype(np.float64) @ step.weight.T.astype(np.float64)
    return fma(sums.astype(np.float32), step.steps, step.bias)


def _numbers(step: BinaryStep, signs: Array) -> Array:
    """Dot products of signs, or their equal signs where the network counts those; of pixels, their whole multiples."""
    own, window = step.weights, step.weights.window
    if step.steps:
        x = torch.from_numpy(pixels_of(signs, step.steps)).float()
    else:
        x = torch.from_numpy(np.where(signs, np.float32(1), np.float32(-1))).permute(0, 3, 1, 2)
    x = F.pad(x, window.border(step.size) * 2, value=float(own.pad_value))
    assert step.most < 2**24  # which float32 is exact up to
    weight = torch.from_numpy(own.signs().astype(np.float32)).permute(0, 3, 1, 2)
    dots = F.conv2d(x, weight, stride=window.stride, dilation=window.dilation).permute(0, 2, 3, 1).numpy()
    if own.xnor:
        dots = (dots + step.most) / 2
    size = 2 * step.out_size if step.pools else step.out_size
    numbers: Array = dots[:, :size, :size].round().astype(np.int64)
    return numbers


def pixels_of(images: Array, steps: int) -> Array:
    """Values in [-1, 1) as whole multiples of 1 / ``steps``, the even one of two that are as near."""
    scaled = np.clip(images, np.float32(-1), np.float32(1 - 1 / steps)) * np.float32(steps)
    whole: Array = np.round(scaled).astype(np.int64)
    return whole


def _behind(step: BinaryStep, numbers: Array, old: Array | None) -> Array:
    if step.pools:
        lowest = np.zeros(numbers.shape[3], bool)
        if step.norm_first:
            assert step.signs is not None
            lowest = step.signs.flip_bits()
        numbers = np.where(lowest, -_max_pool(-numbers, 2), _max_pool(numbers, 2))
    if step.signs is not None:
        return _signs(numbers, step.signs)
    assert step.affine is not None
    x = fma(numbers.astype(np.float32), *step.affine)
    if step.relu:
        x = np.maximum(x, np.float32(0))
    if step.adds:
        assert old is not None
        x = x + old
    if step.act is not None:
        gamma, slope, zeta = step.act
        x = x - gamma
        x = fma(x, np.where(x >= 0, np.float32(1), slope), zeta)
    return x
