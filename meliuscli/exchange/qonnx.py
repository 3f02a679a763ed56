"""QONNX files of FINN's sequential networks (Brevitas, finn-examples): dense layers and unpadded convolutions whose weights
and activations go through ``BipolarQuant``, with batch norm or constants behind them.

Read with the package ``onnx``; nothing is executed. A node that no network here computes is refused by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from meliuscli.arch.families.small import CNV_POOLED, FinnConvSpec, FinnDenseSpec
from meliuscli.arch.plan import HEAD, STEM
from meliuscli.arch.spec import ArchSpec
from meliuscli.arch.zoo import spec_from_fields
from meliuscli.data.preprocessing import Preprocessing
from meliuscli.errors import BadInputError
from meliuscli.exchange.qonnx_graph import QonnxNetwork, image_input, read_graph, walk
from meliuscli.exchange.tensors import OUR_EPS, Imported, Taker


def read_qonnx(path: Path, asked: ArchSpec | None) -> Imported:
    """Raises ``MissingError`` without onnx, ``BadInputError`` for a file that is damaged or of another kind of network."""
    graph = read_graph(path)
    if not any(node.op_type in ("BipolarQuant", "Quant") for node in graph.node):
        raise BadInputError(
            f"{path}: no QONNX file: it has no node that quantizes", "evaluate and predict take ONNX files"
        )
    try:
        network = walk(graph)
        shape = [int(d.dim_value) for d in image_input(graph).type.tensor_type.shape.dim]
    except (KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
        raise BadInputError(f"{path}: no sequential QONNX network: {type(error).__name__}: {error}") from None
    if len(shape) != 4 or shape[2] != shape[3] or not network.products:
        raise BadInputError(f"{path}: takes {shape}, not square images, or has no layers")
    spec = _spec_of(path, network, shape) if asked is None else asked
    if not isinstance(spec, FinnDenseSpec | FinnConvSpec):
        raise BadInputError(f"{path}: is a network of FINN's, and --arch a {spec.family}", "leave --arch out")
    return Imported(spec, _state(path, network, spec), _preprocessing(path, network, spec))


def _spec_of(path: Path, network: QonnxNetwork, shape: list[int]) -> ArchSpec:
    dense = [one.weight.shape[0] for one in network.products if one.weight.ndim == 2]
    convs = [one for one in network.products if one.weight.ndim == 4]
    fields: dict[str, Any] = {"family": "finn-fc", "hidden": dense[:-1], "num_classes": dense[-1] if dense else 0}
    if convs:
        if tuple(at for at, one in enumerate(convs, start=1) if one.is_pooled) != CNV_POOLED:
            raise BadInputError(f"{path}: its convolutions are not those of FINN's CNV")
        fields |= {"family": "finn-cnv", "channels": [one.weight.shape[0] for one in convs]}
    return spec_from_fields({**fields, "input_channels": shape[1], "input_size": shape[2]}, f"{path}: ")


def _state(path: Path, network: QonnxNetwork, spec: FinnDenseSpec | FinnConvSpec) -> dict[str, Any]:
    """Weights as they are, and what is behind them as batch norm of mean 0 and deviation 1."""
    layers = [layer for layer in spec.layers() if layer.kind == "conv"]
    taker = Taker(path, {f"{number}: {one.name}": one.weight for number, one in enumerate(network.products)})
    for number, one in enumerate(network.products):
        if number >= len(layers):
            break
        layer, width = layers[number], one.weight.shape[0]
        place = layer.name.removesuffix(".conv")
        shape = (layer.out_channels, layer.in_channels, *(layer.kernel,) * (one.weight.ndim - 2))
        weight = taker.take(f"{number}: {one.name}", shape)
        taker.put(
            f"{place}.conv.weight", weight.reshape(layer.out_channels, layer.in_channels, layer.kernel, layer.kernel)
        )
        if one.bits != layer.activation_bits:
            taker.problems.append(f"{one.name} takes {one.bits} bits, and {layer.name} {layer.activation_bits}")
        for name, value in (("weight", one.behind.factor), ("bias", one.behind.offset)):
            taker.put(f"{place}.bn.{name}", np.broadcast_to(value, (width,)))
        taker.put(f"{place}.bn.running_mean", np.zeros(width))
        taker.put(f"{place}.bn.running_var", np.full(width, 1 - OUR_EPS))
        taker.zero_counter(f"{place}.bn")
    for layer in layers[len(network.products) :]:
        taker.problems.append(f"{layer.name} is missing")
    assert layers[0].stage == STEM
    assert layers[-1].stage == HEAD
    return dict(taker.finish())


def _preprocessing(path: Path, network: QonnxNetwork, spec: ArchSpec) -> Preprocessing:
    """What the graph does to pixels in [0, 1] in front of the first layer."""
    factor, offset = (
        np.broadcast_to(one, (spec.input_channels,)) for one in (network.entry.factor, network.entry.offset)
    )
    if not (factor > 0).all():
        raise BadInputError(f"{path}: it turns its pixels around in front of the first layer")
    mean, std = tuple(map(float, -offset / factor)), tuple(map(float, 1 / factor))
    size = spec.input_size
    return Preprocessing(size, spec.input_channels, size, size, mean, std)
