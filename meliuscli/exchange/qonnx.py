"""QONNX files of FINN's sequential networks (Brevitas, finn-examples): dense layers and unpadded convolutions whose weights
and activations go through ``BipolarQuant``, with batch norm or constants behind them.

Read with the package ``onnx``; nothing is executed. A node that no network here computes is refused by its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from meliuscli.arch.families.small import CNV_POOLED, INPUT_BITS, FinnConvSpec, FinnDenseSpec
from meliuscli.arch.plan import HEAD, STEM
from meliuscli.arch.spec import ArchSpec
from meliuscli.arch.zoo import spec_from_fields
from meliuscli.data.preprocessing import Preprocessing
from meliuscli.errors import BadInputError, MissingError
from meliuscli.exchange.tensors import OUR_EPS, Array, Imported, Taker

RESHAPES = ("Reshape", "Flatten", "Identity", "Dropout", "Squeeze", "Unsqueeze")
SHAPES = ("Shape", "Gather", "Concat", "Constant", "Unsqueeze")
"""What computes shapes alone."""
MAX_NODES = 10_000


@dataclass(slots=True)
class _Affine:
    """x -> factor * x + offset, numbers or one a channel."""

    factor: Array = field(default_factory=lambda: np.ones(1))
    offset: Array = field(default_factory=lambda: np.zeros(1))

    def then(self, factor: Array, offset: Array) -> None:
        self.factor, self.offset = self.factor * factor, self.offset * factor + offset


@dataclass(slots=True)
class _Product:
    """A dense layer or convolution: weights (outputs, inputs[, kernel, kernel]) of -1 and +1, and what is behind it up to
    the next sign. ``bits`` are those of what enters."""

    name: str
    weight: Array
    bits: int
    behind: _Affine
    is_pooled: bool = False


@dataclass(slots=True)
class _Network:
    products: list[_Product] = field(default_factory=list)
    entry: _Affine = field(default_factory=_Affine)
    bits: int = 32
    """Of what the next product sees."""
    sign: Array = field(default_factory=lambda: np.ones(1))
    """The scale of the last sign."""

    @property
    def affine(self) -> _Affine:
        """What the values since the last product went through."""
        return self.products[-1].behind if self.products else self.entry


def read_qonnx(path: Path, asked: ArchSpec | None) -> Imported:
    """Raises ``MissingError`` without onnx, ``BadInputError`` for a file that is damaged or of another kind of network."""
    graph = _graph(path)
    if not any(node.op_type in ("BipolarQuant", "Quant") for node in graph.node):
        raise BadInputError(
            f"{path}: no QONNX file: it has no node that quantizes", "evaluate and predict take ONNX files"
        )
    try:
        network = _walk(path, graph)
        shape = [int(d.dim_value) for d in _images(graph).type.tensor_type.shape.dim]
    except (KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
        raise BadInputError(f"{path}: no sequential QONNX network: {type(error).__name__}: {error}") from None
    if len(shape) != 4 or shape[2] != shape[3] or not network.products:
        raise BadInputError(f"{path}: takes {shape}, not square images, or has no layers")
    spec = _spec_of(path, network, shape) if asked is None else asked
    if not isinstance(spec, FinnDenseSpec | FinnConvSpec):
        raise BadInputError(f"{path}: is a network of FINN's, and --arch a {spec.family}", "leave --arch out")
    return Imported(spec, _state(path, network, spec), _preprocessing(path, network, spec))


def _graph(path: Path) -> Any:
    try:
        import onnx
    except ImportError:
        raise MissingError("a QONNX file needs the package onnx", 'pip install "meliuscli[onnx]"') from None
    try:
        graph = onnx.load(str(path), load_external_data=False).graph
    except Exception as error:  # protobuf's errors have no common class
        raise BadInputError(f"{path}: corrupt, or no ONNX file: {str(error)[:100]}") from None
    if len(graph.node) > MAX_NODES:
        raise BadInputError(f"{path}: has {len(graph.node):,} nodes")
    return graph


def _images(graph: Any) -> Any:
    """The input that is no constant."""
    constants = {one.name for one in graph.initializer}
    found = [one for one in graph.input if one.name not in constants]
    if len(found) != 1:
        raise ValueError(f"it has {len(found)} inputs")
    return found[0]


def _walk(path: Path, graph: Any) -> _Network:
    """Follow the images through the graph; whatever else goes in is made of constants."""
    from onnx import numpy_helper

    constants: dict[str, Array] = {}
    for one in graph.initializer:
        if one.external_data or one.data_location:
            raise ValueError(f"{one.name} lies in another file")
        constants[one.name] = numpy_helper.to_array(one)
    network, at = _Network(), _images(graph).name
    for node in graph.node:
        attributes = {one.name: _attribute(one) for one in node.attribute}
        if at in node.input and node.op_type != "Shape":
            given = [constants[name] for name in node.input if name != at and name in constants]
            if (
                len(given) != len([name for name in node.input if name not in (at, "")])
                and node.op_type not in RESHAPES
            ):
                raise ValueError(f"{node.op_type} takes two activations")
            _apply(node, given, attributes, network, is_first=node.input[0] == at)
            at = node.output[0]
        elif node.op_type == "Constant":
            constants[node.output[0]] = attributes["value"]
        elif node.op_type not in SHAPES:
            constants[node.output[0]] = _constant(node, [constants[name] for name in node.input], attributes)
    if at != graph.output[0].name:
        raise ValueError("its images do not reach its output")
    return network


def _attribute(one: Any) -> Any:
    from onnx import helper, numpy_helper

    value = helper.get_attribute_value(one)
    return numpy_helper.to_array(value) if hasattr(value, "dims") and hasattr(value, "data_type") else value


def _constant(node: Any, given: list[Array], attributes: Mapping[str, Any]) -> Array:
    """What a node makes of constants."""
    first = given[0].astype(np.float64)
    if node.op_type == "BipolarQuant":
        return np.where(first >= 0, 1.0, -1.0) * given[1]
    if node.op_type == "Transpose":
        return first.transpose(attributes.get("perm"))
    binary = {"Pow": np.power, "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}
    if node.op_type == "Sqrt":
        return np.sqrt(first)
    if node.op_type in binary:
        return np.asarray(binary[node.op_type](first, given[1]))
    raise ValueError(f"{node.op_type} of constants")


def _apply(node: Any, given: list[Array], attributes: Mapping[str, Any], network: _Network, is_first: bool) -> None:
    """One node on the way of the images."""
    kind, affine = node.op_type, network.affine
    values = [np.asarray(one, np.float64).reshape(-1) for one in given]
    if kind == "BipolarQuant":
        network.bits, network.sign = 1, _one_number(values[0])
    elif kind == "Quant":
        _check_pixels(values, attributes)
        network.bits = INPUT_BITS
    elif kind in ("MatMul", "Conv"):
        _product(node, given, attributes, network, is_first)
    elif kind == "BatchNormalization":
        gamma, beta, mean, var = values
        factor = gamma / np.sqrt(var + attributes.get("epsilon", 1e-5))
        affine.then(factor, beta - mean * factor)
    elif kind == "Mul" or (kind == "Div" and is_first):
        affine.then(values[0] if kind == "Mul" else 1 / values[0], np.zeros(1))
    elif kind == "Add" or (kind == "Sub" and is_first):
        affine.then(np.ones(1), values[0] if kind == "Add" else -values[0])
    elif kind == "MaxPool":
        if list(attributes["kernel_shape"]) != [2, 2] or list(attributes.get("strides", [1, 1])) != [2, 2]:
            raise ValueError("a pooling that does not halve the map")
        network.products[-1].is_pooled = True
    elif kind not in RESHAPES:
        raise ValueError(f"{kind}, which no network here computes")


def _product(node: Any, given: list[Array], attributes: Mapping[str, Any], network: _Network, is_first: bool) -> None:
    weight, kind = np.asarray(given[0], np.float64), node.op_type
    if kind == "MatMul":
        if weight.ndim != 2 or not is_first:
            raise ValueError("a product of two maps")
        weight = weight.T
    elif any(attributes.get("pads", [])) or set(attributes.get("strides", [1])) | {attributes.get("group", 1)} != {1}:
        raise ValueError("a convolution with padding, stride or groups")
    if len(given) != 1 or network.bits > INPUT_BITS:
        raise ValueError(f"a {kind} with a bias, or of floats")
    size = np.abs(weight).reshape(len(weight), -1)
    if not (size == size[:, :1]).all() or not size.all():
        raise ValueError(f"a {kind} whose weights are not binary")
    behind = _Affine()
    behind.then(size[:, 0] * network.sign, np.zeros(1))
    network.products.append(
        _Product(node.name or f"{kind}_{len(network.products)}", np.sign(weight), network.bits, behind)
    )
    network.bits, network.sign = 32, np.ones(1)


def _one_number(values: Array) -> Array:
    if values.size != 1 or values[0] <= 0:
        raise ValueError("a BipolarQuant of activations whose scale is not one positive number")
    return values


def _check_pixels(values: list[Array], attributes: Mapping[str, Any]) -> None:
    scale, zero, bits = (float(one[0]) for one in values[:3])
    wanted = (2.0 ** (1 - INPUT_BITS), 0.0, float(INPUT_BITS))
    if (scale, zero, bits) != wanted or not attributes.get("signed", 1) or attributes.get("narrow", 0):
        raise ValueError(f"a Quant other than that of {INPUT_BITS}-bit pixels")


def _spec_of(path: Path, network: _Network, shape: list[int]) -> ArchSpec:
    dense = [one.weight.shape[0] for one in network.products if one.weight.ndim == 2]
    convs = [one for one in network.products if one.weight.ndim == 4]
    fields: dict[str, Any] = {"family": "finn-fc", "hidden": dense[:-1], "num_classes": dense[-1] if dense else 0}
    if convs:
        if tuple(at for at, one in enumerate(convs, start=1) if one.is_pooled) != CNV_POOLED:
            raise BadInputError(f"{path}: its convolutions are not those of FINN's CNV")
        fields |= {"family": "finn-cnv", "channels": [one.weight.shape[0] for one in convs]}
    return spec_from_fields({**fields, "input_channels": shape[1], "input_size": shape[2]}, f"{path}: ")


def _state(path: Path, network: _Network, spec: FinnDenseSpec | FinnConvSpec) -> dict[str, Any]:
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


def _preprocessing(path: Path, network: _Network, spec: ArchSpec) -> Preprocessing:
    """What the graph does to pixels in [0, 1] in front of the first layer."""
    factor, offset = (
        np.broadcast_to(one, (spec.input_channels,)) for one in (network.entry.factor, network.entry.offset)
    )
    if not (factor > 0).all():
        raise BadInputError(f"{path}: it turns its pixels around in front of the first layer")
    mean, std = tuple(map(float, -offset / factor)), tuple(map(float, 1 / factor))
    size = spec.input_size
    return Preprocessing(size, spec.input_channels, size, size, mean, std)
