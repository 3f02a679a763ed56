"""FINN's networks as QONNX: dense layers and unpadded convolutions in a row, as its own tools and hls4ml take them.

Signs are those of the chain that the C library runs: its thresholds T are whole numbers, so that batch norm in front of a sign
is an offset of -T, which fixed point holds exactly. Where batch norm turns signs around, the layer's weights are turned
instead, and between batch norm and the signs that a dense layer reads stands a ``Flatten``. Both are for hls4ml 1.3.0: it merges batch norm
with signs as though its factor were positive, and quantizes the binary weights of a dense layer behind such a pair twice, so that all are 1.
A pixel of CNV is a ``Quant`` of 8 bits; batch norm has an epsilon of 0."""

from __future__ import annotations

from typing import Any

import numpy as np

from meliuscli.arch.families.small import INPUT_BITS, FinnConvSpec, FinnDenseSpec
from meliuscli.arch.spec import ArchSpec
from meliuscli.export.c.chain import BinaryStep, Chain
from meliuscli.packed.program import Array


def is_row_of_bits(spec: ArchSpec) -> bool:
    """Is it a network of FINN's?"""
    return isinstance(spec, FinnDenseSpec | FinnConvSpec)


def add_chain(graph: Any, images: Any, chain: Chain) -> Any:
    """The nodes of a network of FINN's behind its ``images``; the value of its logits. ``graph`` is a ``QonnxGraph``."""
    x = images
    for number, step in enumerate(chain.binary):
        name = step.name.replace(".", "_")
        scale, shift, turned = _affine(step)
        weights = step.weights.signs().transpose(0, 3, 1, 2).astype(np.float32)  # outputs, channels, rows, columns
        weights *= turned[:, None, None, None]
        if step.weights.window.kernel == step.size:  # a dense layer of all that is there
            if len(x.shape) > 1:
                x = graph.add("Flatten", f"{name}_flat", [x.name], (int(np.prod(x.shape)),), axis=1)
            if number == 0:
                x = _signs(graph, x, f"{name}_signs")
            weights = weights.reshape(len(weights), -1).T
            quantized = graph.bipolar(graph.constant(f"{name}_latent", weights), f"{name}_weights", weights.shape)
            x = graph.add("MatMul", f"{name}_products", [x.name, quantized], (weights.shape[1],))
        else:
            if number == 0:
                x = _pixels(graph, x, f"{name}_pixels")
            quantized = graph.bipolar(graph.constant(f"{name}_latent", weights), f"{name}_weights", weights.shape)
            shape, kernel = (len(weights), step.conv_size, step.conv_size), [step.weights.window.kernel] * 2
            x = graph.add("Conv", f"{name}_products", [x.name, quantized], shape, kernel_shape=kernel)
        is_last = step is chain.binary[-1]
        x = _norm(graph, x, "logits" if is_last else f"{name}_normed", scale, shift)
        if step.pools:
            shape = (x.shape[0], step.out_size, step.out_size)
            x = graph.add("MaxPool", f"{name}_pooled", [x.name], shape, kernel_shape=[2, 2], strides=[2, 2])
        elif len(x.shape) == 1 and not is_last:
            x = graph.add("Flatten", f"{name}_apart", [x.name], x.shape, axis=1)
        x = x if is_last else _signs(graph, x, f"{name}_signs_behind")
    return x


def _signs(graph: Any, x: Any, name: str) -> Any:
    return graph.add("BipolarQuant", name, [x.name, graph.constant("one", np.float32(1))], x.shape)


def _pixels(graph: Any, x: Any, name: str) -> Any:
    """Of 8 bits, seven of them behind the point."""
    values = {"scale": 2.0 ** (1 - INPUT_BITS), "zero": 0.0, "bits": INPUT_BITS}
    inputs = [graph.constant(f"{name}_{what}", np.float32(value)) for what, value in values.items()]
    return graph.add("Quant", name, [x.name, *inputs], x.shape, signed=1, narrow=0, rounding_mode="ROUND")


def _norm(graph: Any, x: Any, name: str, scale: Array, shift: Array) -> Any:
    ones = np.ones(len(scale), np.float32)
    values = {"scale": scale, "shift": shift, "mean": 0 * ones, "variance": ones}
    inputs = [graph.constant(f"{name}_{what}", value.astype(np.float32)) for what, value in values.items()]
    return graph.add("BatchNormalization", name, [x.name, *inputs], x.shape, epsilon=0.0)


def _affine(step: BinaryStep) -> tuple[Array, Array, Array]:
    """Factor and offset of a layer's products, and -1 for outputs whose weights are turned, else 1. The products of CNV's first
    layer, which sees pixels, are multiples of 1 / 128."""
    ones = np.ones(step.weights.outputs, np.float32)
    if step.affine is not None:
        return *step.affine, ones
    assert step.signs is not None
    assert step.signs.values is not None
    flips, least = step.signs.flip_bits(), step.signs.values
    # Below T is, turned around, at least 1 - T.
    offset = -np.where(flips, 1 - least, least) / max(step.steps, 1)
    return ones, offset.astype(np.float32), np.where(flips, -ones, ones)
