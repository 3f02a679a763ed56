"""QONNX: an ONNX graph whose binary layers are ``BipolarQuant`` nodes, for FPGA flows (qonnx, hls4ml).

It is made of the packed runner's tensors, so that signs are taken at its thresholds: +1 where y = a * x + b is not negative,
with a of -1 or 1 and b a float, so that rounding cannot turn y's sign. y is padded with -1 in front of its quantizer, so that
the convolution's input is bipolar to its edges. Shapes are static, with a batch of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from meliuscli.arch.families.dense import DenseFamilySpec, runs_whole
from meliuscli.arch.families.resnet import BiRealNetSpec, ResNetESpec
from meliuscli.arch.families.small import FinnConvSpec, FinnDenseSpec
from meliuscli.arch.families.units import DenseUnit, Transition
from meliuscli.arch.plan import STEM
from meliuscli.arch.spec import ArchSpec
from meliuscli.data.preprocessing import KEY, Preprocessing
from meliuscli.errors import BadInputError, MissingError
from meliuscli.export.c.chain_fold import fold_chain
from meliuscli.export.onnx import HINT
from meliuscli.export.qonnx_nodes import DOMAIN, QonnxGraph, Value
from meliuscli.export.qonnx_residual import add_residual
from meliuscli.export.qonnx_small import add_chain, is_row_of_bits
from meliuscli.packed.dense import Tensors, shuffled
from meliuscli.packed.layout import Window
from meliuscli.packed.program import Array
from meliuscli.packed.runner import PackedDense, PackedModule, PackedNetwork
from meliuscli.packed.unfold import before_sign
from meliuscli.packed.words import BinaryWeights
from meliuscli.results import write_bytes

OPSET = 13
IMAGES = 4
"""Random images on which a file is held against the packed runner."""


def qonnx_model(runner: PackedNetwork, how: Preprocessing | None = None) -> Any:
    """The ONNX model. Raises ``MissingError`` without onnx, ``BadInputError`` as ``require_qonnx``."""
    require_qonnx(runner.spec)
    try:
        from onnx import TensorProto, helper, numpy_helper
    except ImportError:
        raise MissingError("QONNX export needs the package 'onnx', which is not installed", HINT) from None
    graph, spec = QonnxGraph(), runner.spec
    if isinstance(runner, PackedDense):
        logits = _network(graph, runner.spec, runner.tensors)
    else:
        assert isinstance(runner, PackedModule)
        chain = fold_chain(runner.network, spec, runner.weights)
        add = add_chain if is_row_of_bits(spec) else add_residual
        logits = add(graph, Value("images", spec.input_shape), chain)
    kinds = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int64): TensorProto.INT64}
    arrays = {name: value for name, value in graph.constants.items() if value.dtype in kinds}

    def info(name: str, shape: tuple[int, ...]) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    made = helper.make_graph(
        graph.nodes,
        "network",
        [info("images", (1, *spec.input_shape))],
        [info(logits.name, (1, *logits.shape))],
        [numpy_helper.from_array(np.asarray(value, order="C"), name) for name, value in arrays.items()],
        value_info=[info(name, shape) for name, shape in graph.shapes.items() if name != logits.name],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(made, opset_imports=opsets, producer_name="meliuscli", ir_version=8)
    about = {"archid": spec.archid, "spec": spec.to_toml(), **({} if how is None else {KEY: how.to_json()})}
    helper.set_model_props(model, about)
    return model


def require_qonnx(spec: ArchSpec) -> None:
    """Raises ``BadInputError`` for a network of which no QONNX graph is made."""
    if not runs_whole(spec) and not is_row_of_bits(spec) and not isinstance(spec, ResNetESpec | BiRealNetSpec):
        what = f"{spec.family} of {spec.summary()}" if isinstance(spec, DenseFamilySpec) else spec.family
        hint = "it is for MeliusNet and BinaryDenseNet with borders of -1, ResNetE, Bi-Real Net, and FINN's networks"
        raise BadInputError(f"--to qonnx: not for {what}", hint)


def verdicts(spec: ArchSpec) -> str:
    """What FINN and hls4ml make of such a network. Neither is run here: tests/test_export_finn.py and tests/test_export_hls4ml.py did."""
    finn, hls4ml = "finn-plus 1.6.1", "hls4ml 1.3"
    if isinstance(spec, FinnDenseSpec | FinnConvSpec):
        takes = f"{hls4ml}: compiles it, and predicts the same where its fixed point holds the image"
        skipped = "; FINN itself, by its sources, passes over a graph of BipolarQuant alone without a word"
        return f"{finn}: takes it to its hardware layers{skipped if isinstance(spec, FinnDenseSpec) else ''}; {takes}"
    if isinstance(spec, BiRealNetSpec) or getattr(spec, "pad_value", -1) == 0:
        return f"{finn}: streamlined it gives other answers, for 0 around signs is no sign; {hls4ml}: not tried"
    stops = "streamlines it to the same answers, and has no hardware layer for its Pad"
    if getattr(spec, "stem", None) == "grouped":
        stops = "its streamlining fails at a grouped stem"
    refuses = "refuses it, for maps are padded with -1" if isinstance(spec, DenseFamilySpec) else "not tried"
    return f"{finn}: {stops}; {hls4ml}: {refuses}"


def _network(graph: QonnxGraph, spec: DenseFamilySpec, tensors: Tensors) -> Value:
    x = _stem(graph, spec, tensors)
    for stage in spec.stages():
        for unit in stage.units:
            x = _unit(graph, x, unit, tensors)
        if stage.transition is not None:
            x = _transition(graph, x, stage.transition, tensors)
    channels = x.shape[0]
    x = graph.affine(x, "head_bn", tensors["head.bn.scale"], tensors["head.bn.shift"])
    x = graph.add("Relu", "head_relu", [x.name], x.shape)
    x = graph.add("GlobalAveragePool", "head_mean", [x.name], (channels, 1, 1))
    x = graph.add("Flatten", "head_flat", [x.name], (channels,), axis=1)
    weights = graph.constant("head_weights", tensors["head.fc.weight"].T)
    x = graph.add("MatMul", "head_products", [x.name, weights], (spec.num_classes,))
    return graph.add("Add", "logits", [x.name, graph.constant("head_bias", tensors["head.fc.bias"])], x.shape)


def _stem(graph: QonnxGraph, spec: DenseFamilySpec, tensors: Tensors) -> Value:
    x = Value("images", spec.input_shape)
    for layer in (layer for layer in spec.layers() if layer.stage == STEM):
        name, edge = layer.name.replace(".", "_"), [layer.kernel // 2] * 4
        shape, window = layer.output, {"kernel_shape": [layer.kernel] * 2, "strides": [layer.stride] * 2, "pads": edge}
        if layer.kind == "conv":
            inputs = [graph.constant(f"{name}_{what}", tensors[f"{layer.name}.{what}"]) for what in ("weight", "bias")]
            x = graph.add("Conv", name, [x.name, *inputs], shape, group=layer.groups, **window)
        elif layer.kind == "max_pool":
            x = graph.add("MaxPool", name, [x.name], shape, **window)
        elif layer.kind == "relu":
            x = graph.add("Relu", name, [x.name], shape)
    return x


def _unit(graph: QonnxGraph, x: Value, unit: DenseUnit, tensors: Tensors) -> Value:
    """Signs, binary convolution, and its count of equal signs behind the channels or added to the last."""
    name, size, edge = unit.name.replace(".", "_"), x.shape[1], unit.dilation
    scale, shift = before_sign(tensors[f"{unit.name}.conv.thresholds"], tensors[f"{unit.name}.conv.flips"])
    y = graph.affine(x, f"{name}_normed", scale, shift)
    wide = (unit.channels, size + 2 * edge, size + 2 * edge)
    pads = graph.constant(f"{name}_pads", np.array([0, 0, edge, edge, 0, 0, edge, edge], np.int64))
    y = graph.add("Pad", f"{name}_padded", [y.name, pads, graph.constant("minus_one", np.float32(-1))], wide)
    signs = graph.bipolar(y.name, f"{name}_signs", (1, *wide))
    words = BinaryWeights(tensors[f"{unit.name}.conv.words"], unit.channels, Window(3))
    latent = graph.constant(f"{name}_latent", words.signs().transpose(0, 3, 1, 2).astype(np.float32))
    weights = graph.bipolar(latent, f"{name}_weights", (unit.growth, unit.channels, 3, 3))
    new = (unit.growth, size, size)
    y = graph.add(
        "Conv", f"{name}_dots", [signs, weights], new, kernel_shape=[3, 3], dilations=[edge] * 2, pads=[0] * 4
    )
    half = np.full(unit.growth, 0.5)
    y = graph.affine(y, f"{name}_counts", half, 9 * unit.channels * half)
    if not unit.adds:
        return graph.add("Concat", name, [x.name, y.name], (unit.channels + unit.growth, size, size), axis=1)
    first = unit.channels - unit.growth
    kept = _channels(graph, x, f"{name}_kept", 0, first)
    newest = _channels(graph, x, f"{name}_newest", first, unit.channels)
    y = graph.add("Add", f"{name}_better", [newest.name, y.name], new)
    return graph.add("Concat", name, [kept.name, y.name], x.shape, axis=1)


def _channels(graph: QonnxGraph, x: Value, name: str, first: int, last: int) -> Value:
    numbers = {"first": first, "last": last, "axis": 1}
    bounds = [graph.constant(f"{name}_{what}", np.array([number], np.int64)) for what, number in numbers.items()]
    return graph.add("Slice", name, [x.name, *bounds], (last - first, *x.shape[1:]))


def _transition(graph: QonnxGraph, x: Value, transition: Transition, tensors: Tensors) -> Value:
    name, channels, target, groups, _, pools = transition
    x = graph.affine(x, f"{name}_bn", tensors[f"{name}.bn.scale"], tensors[f"{name}.bn.shift"])
    shape = (channels, transition.out_size, transition.out_size)
    if pools:
        x = graph.add("MaxPool", f"{name}_pool", [x.name], shape, kernel_shape=[2, 2], strides=[2, 2])
    x = graph.add("Relu", f"{name}_relu", [x.name], shape)
    if groups > 1:
        order = graph.constant(f"{name}_order", shuffled(channels).astype(np.int64))
        x = graph.add("Gather", f"{name}_shuffled", [x.name, order], shape, axis=1)
    weights = graph.constant(f"{name}_weight", tensors[f"{name}.conv.weight"][:, :, None, None])
    return graph.add("Conv", name, [x.name, weights], (target, *shape[1:]), kernel_shape=[1, 1], group=groups)


def run_qonnx(model: Any, images: Tensor) -> Array | None:
    """(N, C, S, S) -> (N, classes) logits by qonnx's own executor, node by node; None where qonnx is not installed."""
    try:
        from qonnx.core.modelwrapper import ModelWrapper
        from qonnx.core.onnx_exec import execute_onnx
    except ImportError:
        return None
    wrapped = ModelWrapper(model)
    return np.concatenate([execute_onnx(wrapped, {"images": image[None]})["logits"] for image in images.numpy()])


def write_qonnx(
    runner: PackedNetwork, path: Path, how: Preprocessing | None, images: Tensor
) -> tuple[int, float] | None:
    """Write the file; of ``images`` those with the packed runner's top-1 in qonnx's executor, and the largest difference of a
    logit in standard deviations of the logits. None without qonnx."""
    model = qonnx_model(runner, how)
    theirs = run_qonnx(model, images)
    write_bytes(path, model.SerializeToString())
    if theirs is None:
        return None
    ours = np.concatenate([runner(image[None]).numpy() for image in images])
    return int((ours.argmax(1) == theirs.argmax(1)).sum()), float(np.abs(ours - theirs).max() / ours.std())
