"""ResNetE and Bi-Real Net as QONNX: the steps of the chain that the C library runs, as nodes.

What lies around a map of signs is a ``Pad`` of its own, with as much in front as behind or, as TensorFlow's ``same`` has it at a stride,
less: of -1 or +1 in front of the quantizer, so that the convolution's input is bipolar to its edges, of 0 behind it."""

from __future__ import annotations

import numpy as np

from meliuscli.export.c.chain import IMAGE, BinaryStep, Chain, HeadStep, ShortcutStep, SignStep, StemStep
from meliuscli.export.c.tables import plain
from meliuscli.export.qonnx_nodes import QonnxGraph, Value
from meliuscli.packed.layout import Window
from meliuscli.packed.unfold import before_sign


def add_residual(graph: QonnxGraph, images: Value, chain: Chain) -> Value:
    """The nodes of a network behind its ``images``; the value of its logits."""
    maps = {IMAGE: images}
    for step in chain.steps:
        x = maps[step.source]
        if isinstance(step, StemStep):
            x = _stem(graph, step, x)
        elif isinstance(step, SignStep):
            x = _shifted(graph, step, x)
        elif isinstance(step, ShortcutStep):
            x = _shortcut(graph, step, x)
        elif isinstance(step, BinaryStep):
            x = _binary(graph, step, x, maps[step.target])
        else:
            assert isinstance(step, HeadStep), step
            x = _head(graph, step, x)
        maps[step.target] = x
    return x


def _pads(window: Window, size: int) -> list[int]:
    """What lies around a map, in ONNX's order: rows and columns in front, then behind."""
    before, after = window.border(size)
    return [before, before, after, after]


def _stem(graph: QonnxGraph, step: StemStep, x: Value) -> Value:
    if step.before is not None:
        x = graph.affine(x, "image_normed", *step.before)
    for conv, size in zip(step.convs, step.sizes(), strict=False):
        name, window = plain(conv.name), conv.window
        inputs = [graph.constant(f"{name}_weight", conv.weight), graph.constant(f"{name}_bias", conv.bias)]
        shape = (len(conv.weight), *[window.out_size(size)] * 2)
        kernel = {"kernel_shape": [window.kernel] * 2, "strides": [window.stride] * 2, "pads": _pads(window, size)}
        x = graph.add("Conv", name, [x.name, *inputs], shape, group=conv.groups, **kernel)
        x = graph.add("Relu", f"{name}_relu", [x.name], shape) if conv.relu else x
    if step.pools:
        shape = (x.shape[0], step.out_size, step.out_size)
        pads = _pads(step.pooling, x.shape[1])
        x = graph.add("MaxPool", "stem_pool", [x.name], shape, kernel_shape=[3, 3], strides=[2, 2], pads=pads)
    return x if step.behind is None else graph.affine(x, "stem_normed", *step.behind)


def _shifted(graph: QonnxGraph, step: SignStep, x: Value) -> Value:
    """What a quantizer takes the signs of."""
    values, flips = step.signs.values, step.signs.flips
    if values is None:
        return x
    none = np.zeros(step.signs.words, np.uint32)
    return graph.affine(x, plain(step.name), *before_sign(values, none if flips is None else flips))


def _shortcut(graph: QonnxGraph, step: ShortcutStep, x: Value) -> Value:
    name, half = plain(step.name), step.out_size
    if step.pools:
        odd, shape = step.size % 2, (x.shape[0], half, half)
        pads = {"pads": [0, 0, odd, odd], "count_include_pad": 0}
        x = graph.add("AveragePool", f"{name}_pool", [x.name], shape, kernel_shape=[2, 2], strides=[2, 2], **pads)
    if step.clips:
        bounds = [graph.constant(f"{name}_{what}", np.float32(value)) for what, value in (("low", -1), ("high", 1))]
        inside = graph.add("Clip", f"{name}_inside", [x.name, *bounds], x.shape)
        beyond = graph.add("Sub", f"{name}_beyond", [x.name, inside.name], x.shape)
        slope = graph.constant(f"{name}_slope", np.float32(0.1))
        beyond = graph.add("Mul", f"{name}_less", [beyond.name, slope], x.shape)
        x = graph.add("Add", f"{name}_clipped", [beyond.name, inside.name], x.shape)
    if step.weight is None:
        return x
    assert step.bias is not None
    weight, bias = (
        graph.constant(f"{name}_weight", step.weight[:, :, None, None]),
        graph.constant(f"{name}_bias", step.bias),
    )
    return graph.add("Conv", name, [x.name, weight, bias], (len(step.weight), *x.shape[1:]), kernel_shape=[1, 1])


def _binary(graph: QonnxGraph, step: BinaryStep, x: Value, old: Value) -> Value:
    """Pad, quantizer, convolution, batch norm, sum, RPReLU."""
    name, own, window = plain(step.name), step.weights, step.weights.window
    new = (own.outputs, step.out_size, step.out_size)
    latent = graph.constant(f"{name}_latent", own.signs().transpose(0, 3, 1, 2).astype(np.float32))
    weights = graph.bipolar(latent, f"{name}_weights", (own.outputs, own.channels, window.kernel, window.kernel))
    kernel = {"kernel_shape": [window.kernel] * 2, "strides": [window.stride] * 2, "dilations": [window.dilation] * 2}
    y = graph.add("Conv", f"{name}_dots", [_bordered(graph, step, x).name, weights], new, **kernel)
    if own.xnor:
        half = np.full(own.outputs, 0.5)
        y = graph.affine(y, f"{name}_counts", half, step.most * half)
    assert step.affine is not None
    assert step.adds
    y = graph.affine(y, f"{name}_normed", *step.affine)
    y = graph.add("Add", name, [y.name, old.name], new)
    if step.act is None:
        return y
    gamma, slope, zeta = (
        graph.constant(f"{name}_{what}", values.reshape(-1, 1, 1))
        for what, values in zip(("gamma", "slope", "zeta"), step.act, strict=True)
    )
    y = graph.add("Sub", f"{name}_moved", [y.name, gamma], new)
    y = graph.add("PRelu", f"{name}_bent", [y.name, slope], new)
    return graph.add("Add", f"{name}_act", [y.name, zeta], new)


def _bordered(graph: QonnxGraph, step: BinaryStep, x: Value) -> Value:
    """The signs with what lies around them."""
    name, value, size = plain(step.name), step.weights.pad_value, x.shape[1]
    before, after = step.weights.window.border(size)
    wide = (x.shape[0], *[size + before + after] * 2)

    def padded(y: Value) -> Value:
        if wide == y.shape:
            return y
        pads = graph.constant(f"{name}_pads", np.array([0, 0, before, before, 0, 0, after, after], np.int64))
        outside = graph.constant(f"{name}_outside", np.float32(value))
        return graph.add("Pad", f"{name}_padded", [y.name, pads, outside], wide)

    x = x if value == 0 else padded(x)
    signs = Value(graph.bipolar(x.name, f"{name}_signs", (1, *x.shape)), x.shape)
    return padded(signs) if value == 0 else signs


def _head(graph: QonnxGraph, step: HeadStep, x: Value) -> Value:
    if step.relu:
        x = graph.add("Relu", "head_relu", [x.name], x.shape)
    x = graph.add("GlobalAveragePool", "head_mean", [x.name], (x.shape[0], 1, 1))
    x = graph.add("Flatten", "head_flat", [x.name], (x.shape[0],), axis=1)
    products = (len(step.weight),)
    x = graph.add("MatMul", "head_products", [x.name, graph.constant("head_weights", step.weight.T)], products)
    return graph.add("Add", "logits", [x.name, graph.constant("head_bias", step.bias)], products)
