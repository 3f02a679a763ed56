"""From layers to steps: each function lays out the tables and weights of one kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from meliuscli.packed import contract, maps
from meliuscli.packed.isa import Isa
from meliuscli.packed.layout import (
    WORD,
    Map,
    Window,
    choose_vectors,
    in_blocks,
    num_words,
    offsets_of,
    padded,
    round_up,
)
from meliuscli.packed.program import Argument, Array, Kind, Step, make_step, zeros
from meliuscli.packed.words import BinaryWeights, pack_bits

FEW_PIXELS = 3
"""Up to so many pixels a kernel takes them one by one."""


def pack_step(layer: str, isa: Isa, source: Map, words: Map, thresholds: Array, flips: Array) -> Step:
    """Bits of the first channels of a float map, as many as there are thresholds, into the inside of a map of words."""
    count = num_words(len(thresholds))
    values: dict[str, Argument] = {
        "input": source.data,
        "output": words.data,
        "places": offsets_of(np.stack([source.all_places(), words.all_places()], axis=1)),
        "words_bytes": 4 * count,
        "thresholds": padded(thresholds, WORD * count, np.inf),
        "flips": _words(flips),
    }
    units = len(source.all_places())
    return make_step(layer, "pack", "pack", isa, lambda: maps.pack_kernel(isa), maps.PACK, values, units)


def _words(values: Array) -> Array:
    copy = zeros(values.shape, np.uint32)
    copy[...] = values
    return copy


def fill_border(words: Map, weights: BinaryWeights) -> None:
    """Make the border the padding that the convolution sees: ones where it pads with +1."""
    inner = words.inner.copy()
    ones = pack_bits(np.full(weights.channels, weights.pad_value == 1))
    words.data[...] = 0
    words.data[..., : len(ones)] = ones
    words.inner[...] = inner


def binary_step(
    layer: str,
    isa: Isa,
    words: Map,
    out: Map,
    weights: BinaryWeights,
    channel: int = 0,
    accumulate: bool = False,
) -> Step:
    """A binary convolution of a packed map into channels of a float map from ``channel`` on, or added to them."""
    window = weights.window
    total = weights.channels * window.kernel**2
    pixels = isa.pixels if out.data.shape[0] * out.height * out.width > FEW_PIXELS else 1
    classes, bias = _border_classes(weights, words, total)
    flat = weights.words.reshape(weights.outputs, -1)
    conv = _Conv(
        "binary",
        (choose_vectors(weights.outputs, isa, isa.vectors), pixels),
        window,
        words.taps(window, range(num_words(weights.channels))),
        flat,
        bias,
        classes,
        np.ones(weights.outputs) if weights.scale is None else weights.scale,
        -1.0 if weights.xnor else -2.0,
    )
    return _conv_step(layer, isa, words, out, conv, channel, accumulate)


def _border_classes(weights: BinaryWeights, words: Map, total: int) -> tuple[Array, Array]:
    """For each output pixel (rows, columns) its class, and (classes, outputs) what is added to its count.

    Outside the map the words are zeros, which count as -1. With zero padding the sums of the weights that lie outside
    are added back; which those are makes the classes (16 at most for 3x3 kernels)."""
    window = weights.window
    rows, columns = window.inside(words.height), window.inside(words.width)
    if weights.pad_value != 0:
        return np.zeros((len(rows), len(columns)), int), np.full((1, weights.outputs), float(total))
    kinds_down, down = np.unique(rows, axis=0, return_inverse=True)
    kinds_across, across = np.unique(columns, axis=0, return_inverse=True)
    sums = weights.signs().sum(-1, dtype=np.int64)
    outside = ~(kinds_down[:, None, :, None] & kinds_across[None, :, None, :])
    missing = np.einsum("dakl,okl->dao", outside, sums).reshape(-1, weights.outputs)
    return down.ravel()[:, None] * len(kinds_across) + across.ravel(), total + missing


def float_step(
    layer: str,
    isa: Isa,
    source: Map,
    out: Map,
    weights: Array,
    bias: Array | None = None,
    channel: int = 0,
    elements: Sequence[int] | None = None,
) -> Step:
    """A float 1x1 convolution, (outputs, inputs) weights, of all channels or of ``elements`` of a map."""
    pixels = isa.float_pixels if out.data.shape[0] * out.height * out.width > FEW_PIXELS else 1
    window = Window(1)
    outputs = len(weights)
    conv = _Conv(
        "float",
        (choose_vectors(outputs, isa, isa.float_vectors), pixels),
        window,
        source.taps(window, range(weights.shape[1]) if elements is None else elements),
        weights.astype(np.float32),
        np.zeros((1, outputs)) if bias is None else bias[None],
        np.zeros((out.height, out.width), int),
        np.ones(outputs),
        1.0,
    )
    return _conv_step(layer, isa, source, out, conv, channel, False)


class _Conv(NamedTuple):
    """What a kernel of convolutions computes: ``tile`` is (vectors, pixels) at a time, ``taps`` are the offsets of a window's
    values, and ``classes`` says which row of ``bias`` each pixel has; the sum of products times ``factor`` plus that, times
    ``scale``."""

    kind: Kind
    tile: tuple[int, int]
    window: Window
    taps: Array
    weights: Array
    bias: Array
    classes: Array
    scale: Array
    factor: float


def _conv_step(layer: str, isa: Isa, source: Map, out: Map, conv: _Conv, channel: int, accumulate: bool) -> Step:
    kind, (vectors, pixels), window, taps, weights, bias, classes, scale, factor = conv
    lanes = vectors * isa.lanes
    blocked = in_blocks(weights, lanes)
    width = blocked.shape[0] * lanes
    starts = source.places(window.starts(source.height), window.starts(source.width))
    outs = out.all_places() + 4 * channel
    batch = source.data.shape[0]
    rows = np.stack([starts, outs, np.tile(classes.ravel(), batch) * width * 4], axis=1)
    spare = np.array([[starts[-1], out.data.nbytes, 0]]).repeat(-len(rows) % pixels, axis=0)
    table = offsets_of(np.concatenate([rows, spare]))
    values: dict[str, Argument] = {
        "input": source.data,
        "output": out.data,
        "pixels": table,
        "taps": taps,
        "tap_bytes": 4 * len(taps),
        "weights": blocked,
        "block_bytes": blocked[0].nbytes,
        "bias": padded(bias, width),
        "scale": padded(scale, width),
        "factor": factor,
        "old": out.data if accumulate else zeros(64),
        "old_mask": -1 if accumulate else 0,
        "channel_blocks": len(blocked),
    }
    name = f"conv_{kind}_{vectors}x{pixels}"
    units = len(table) // pixels * len(blocked)
    return make_step(
        layer, kind, name, isa, lambda: contract.conv_kernel(isa, kind, vectors, pixels), contract.CONV, values, units
    )


def norm_pool_step(layer: str, isa: Isa, source: Map, out: Map, scale: Array, shift: Array, pools: bool) -> Step:
    """Batch norm, 2x2 max pooling (where ``pools``), ReLU."""
    step = 2 if pools else 1
    starts = source.places(np.arange(out.height) * step, np.arange(out.width) * step)
    _, line, pixel, _ = source.data.strides
    count = round_up(len(scale), isa.lanes)
    values: dict[str, Argument] = {
        "input": source.data,
        "output": out.data,
        "places": offsets_of(np.stack([starts, out.all_places()], axis=1)),
        "right": pixel,
        "below": line,
        "channel_bytes": 4 * count,
        "scale": padded(scale, count),
        "shift": padded(shift, count),
    }
    name = f"norm_pool_{int(pools)}"
    return make_step(
        layer, "float", name, isa, lambda: maps.norm_pool_kernel(isa, pools), maps.POOL, values, len(starts)
    )


def mean_step(layer: str, isa: Isa, source: Map, out: Map, scale: Array, shift: Array) -> Step:
    """Batch norm, ReLU and the mean over a map, into a map of one pixel."""
    count, pixels = round_up(len(scale), isa.lanes), source.height * source.width
    assert out.data.shape[3] == count
    values: dict[str, Argument] = {
        "input": source.data,
        "output": out.data,
        "image_bytes": source.data.strides[0],
        "pixel_bytes": source.data.strides[2],
        "pixels": pixels,
        "vectors": count // isa.lanes,
        "scale": padded(scale, count),
        "shift": padded(shift, count),
        "weight": 1.0 / pixels,
    }
    units = source.data.shape[0] * count // isa.lanes
    return make_step(layer, "float", "mean", isa, lambda: maps.mean_kernel(isa), maps.MEAN, values, units)
