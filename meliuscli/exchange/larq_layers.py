"""Which tensors larq-zoo's networks have in their files, layer by layer of ours, and what they become.

Kernels are latent floats of (height, width, in, out), of which the sign counts, 0 as +1. Most layers have the numbers that Keras
gives them in the order in which they are made; MeliusNet's and Real-to-Binary's have names of their own. A flattened map goes
over rows, columns, channels, where torch has the channels first. Sources: larq_zoo 2.4, ``literature`` and ``sota``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import count, groupby
from typing import Any

import numpy as np

from meliuscli.arch.plan import FLOAT_BITS, HEAD, STEM, Layer
from meliuscli.arch.spec import ArchSpec
from meliuscli.exchange.tensors import Array, Taker

FORMS: Mapping[str, Mapping[str, Any]] = {
    "binary-alexnet": {},
    "xnor-alexnet": {},
    "dorefa-alexnet": {"padding": "same"},
    "birealnet": {"padding": "same", "reactivation": False},
    "real2binary": {"padding": "same"},
    "resnete": {"padding": "same", "pad_value": 0, "input_norm": False},
    "quicknet": {"padding": "same"},
    "binarydensenet": {"padding": "same", "pad_value": 0},
    "meliusnet": {"padding": "same", "pad_value": 0, "stem_pool": 2},
}
"""Family -> the fields in which larq-zoo's networks differ from those of the papers."""
EPS: Mapping[str, float] = {"resnete": 1e-5, "binarydensenet": 1e-5, "meliusnet": 1e-5, "dorefa-alexnet": 1e-4}
"""Family -> epsilon of its batch norms, where one holds for all that is not Keras' own."""
KERAS_EPS = 1e-3
WITH_WEIGHTS = ("conv", "linear", "batch_norm", "prelu")
R2B = "r2b_bnn_block_"
Named = tuple[Layer, str]
"""A layer of ours, and the name of theirs: of a numbered one with its place among its kind, ``quant_conv2d 3``."""
Shapes = dict[str, tuple[int, ...]]


def as_larq(spec: ArchSpec) -> ArchSpec:
    """The network as larq-zoo has it; its family is one of ``FORMS``."""
    return spec.replace(**FORMS[spec.family])


def expected(spec: ArchSpec) -> Shapes:
    """The tensors of a network's file, with their shapes."""
    shapes: Shapes = {}
    for layer, name in named_layers(spec):
        shapes |= dict(_tensors(layer, name).values())
    return shapes


def take_layers(taker: Taker, spec: ArchSpec) -> None:
    """All tensors of a network into the state of ours."""
    first_dense = _first_dense(spec)
    for layer, name in named_layers(spec):
        tensors = _tensors(layer, name)
        if layer.kind == "batch_norm":
            parts = {role: tensor for role, (tensor, _) in tensors.items()}
            taker.norm(layer.name, parts, layer.out_channels, _eps(spec, layer))
            continue
        arrays = {role: taker.take(*tensor) for role, tensor in tensors.items()}
        if "bias" in arrays:
            taker.put(f"{layer.name}.bias", arrays.pop("bias"))
        weight = _as_ours(layer, list(arrays.values()), first_dense.get(layer.name, 1))
        # XNOR-Net's scale is the mean of what is left after clipping.
        taker.put(f"{layer.name}.weight", weight.clip(-1, 1) if _is_clipped(spec, layer) else weight)


def named_layers(spec: ArchSpec) -> Iterator[Named]:
    """The layers that have weights, in the order in which larq-zoo makes them, and their names there."""
    layers = [layer for layer in _in_their_order(spec) if layer.kind in WITH_WEIGHTS]
    if spec.family == "meliusnet":
        return ((layer, _meliusnet_name(layer.name)) for layer in layers)
    if spec.family == "real2binary":
        return zip(layers, _real2binary_names(layers), strict=True)
    return _numbered(layers, _quicknet_kind if spec.family == "quicknet" else _kind)


def _in_their_order(spec: ArchSpec) -> Iterator[Layer]:
    """A block that widens makes its shortcut first."""
    for _, members in groupby(spec.layers(), lambda layer: (layer.stage, layer.block)):
        yield from sorted(members, key=lambda layer: ".shortcut." not in layer.name)


def _numbered(layers: list[Layer], kind_of: Callable[[Layer], str]) -> Iterator[Named]:
    counters: dict[str, Iterator[int]] = {}
    for layer in layers:
        kind = kind_of(layer)
        yield layer, f"{kind} {next(counters.setdefault(kind, count()))}"


def _kind(layer: Layer) -> str:
    if layer.kind == "batch_norm":
        return "batch_normalization"
    quantized = "quant_" if layer.weight_bits < FLOAT_BITS else ""
    return f"{quantized}{'dense' if layer.kind == 'linear' else 'conv2d'}"


def _quicknet_kind(layer: Layer) -> str:
    """Its float layers are larq's too, without a quantizer; only the blurs are Keras' own."""
    kinds = {"batch_norm": "batch_normalization", "linear": "quant_dense"}
    if layer.kind in kinds:
        return kinds[layer.kind]
    if layer.groups == 1:
        return "quant_conv2d"
    return "quant_depthwise_conv2d" if layer.stage == STEM else "depthwise_conv2d"


def _meliusnet_name(name: str) -> str:
    """``stage1.block2.improvement.conv`` -> ``section_0_block_1_improve_binconv``."""
    if match := re.fullmatch(r"stage(\d+)\.block(\d+)\.(dense|improvement)\.(bn|conv)", name):
        stage, block, unit, layer = match.groups()
        unit, layer = unit.replace("improvement", "improve"), layer.replace("conv", "binconv")
        return f"section_{int(stage) - 1}_block_{int(block) - 1}_{unit}_{layer}"
    if match := re.fullmatch(r"transition(\d+)\.(bn|conv)", name):
        return f"section_{int(match[1]) - 1}_transition_{match[2].replace('conv', 'pw')}"
    if match := re.fullmatch(r"stem\.(bn|conv)(\d)", name):
        grouped = "group" if match[2] != "1" and match[1] == "conv" else ""
        return f"stem_s{int(match[2]) - 1}_{grouped}{match[1]}"
    return {"head.bn": "head_bn", "head.fc": "head_dense"}.get(name, name)


def _real2binary_names(layers: list[Layer]) -> Iterator[str]:
    """A block of theirs, from 2 on, is two of ours, a and b; stem and head are blocks too."""
    words = {"bn": "batch_norm", "conv": "conv2d", "fc": "logits"}
    places = list(dict.fromkeys((layer.stage, layer.block) for layer in layers if layer.block))
    ends = {STEM: "1", HEAD: str(2 + -(-len(places) // 2))}
    for layer in layers:
        *_, last = path = layer.name.split(".")
        place = ends.get(layer.stage) or f"{2 + (at := places.index((layer.stage, layer.block))) // 2}{'ab'[at % 2]}"
        word = f"dense_{last}" if "scaling" in path else words.get(last, last)
        part = next((f"{part}_" for part in ("scaling", "shortcut") if part in path), "")
        yield f"{R2B}{place}_{part}{word}"


def _tensors(layer: Layer, name: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Role -> name and shape of a layer's tensors; convolutions in groups have a kernel a group."""
    inputs, outputs, kernel, groups = layer.in_channels, layer.out_channels, layer.kernel, layer.groups
    if layer.kind == "batch_norm":
        roles = {"mean": "moving_mean", "var": "moving_variance", "beta": "beta", "gamma": "gamma"}
        return {role: (f"{name}/{roles[role]}", (outputs,)) for role in list(roles)[: layer.stored]}
    if layer.kind == "prelu":
        return {"alpha": (f"{name}/alpha", (1, 1, outputs))}
    bias = {"bias": (f"{name}/bias", (outputs,))} if layer.bias else {}
    if layer.kind == "linear":
        return {"kernel": (f"{name}/kernel", (inputs, outputs)), **bias}
    if groups == inputs > 1:
        return {"kernel": (f"{name}/depthwise_kernel", (kernel, kernel, inputs, 1)), **bias}
    shape = kernel, kernel, inputs // groups, outputs // groups
    names = [f"{name}/kernel"] if groups == 1 else [f"{name}_conv{group}/kernel" for group in range(groups)]
    return {**{f"kernel{index}": (tensor, shape) for index, tensor in enumerate(names)}, **bias}


def _as_ours(layer: Layer, kernels: list[Array], size: int) -> Array:
    """A layer's kernels as our weight; ``size`` is the height of a flattened map that they see."""
    if layer.kind == "prelu":
        return kernels[0].reshape(-1)
    if layer.kind == "conv" and layer.groups == layer.in_channels > 1:
        return kernels[0].transpose(2, 3, 0, 1)
    if size > 1:
        channels = layer.in_channels // size**2
        columns = kernels[0].reshape(size, size, channels, -1).transpose(3, 2, 0, 1).reshape(-1, layer.in_channels)
        return columns if layer.kind == "linear" else columns[:, :, None, None]
    if layer.kind == "linear":
        return kernels[0].T
    return np.concatenate([kernel.transpose(3, 2, 0, 1) for kernel in kernels])


def _first_dense(spec: ArchSpec) -> dict[str, int]:
    """The layer behind a flattened map of more than one pixel, and the map's height."""
    if spec.family not in ("binary-alexnet", "dorefa-alexnet"):
        return {}
    size = next(layer.out_size for layer in spec.layers() if layer.name == "conv5.pool")
    return {f"fc6.{last}": size for last in ("conv", "linear")}


def _is_clipped(spec: ArchSpec, layer: Layer) -> bool:
    return spec.family == "xnor-alexnet" and layer.weight_bits == 1


def _eps(spec: ArchSpec, layer: Layer) -> float:
    """larq-zoo's networks have up to three of them each."""
    if spec.family == "xnor-alexnet":
        return {"stem.bn": 1e-5, "head.bn": KERAS_EPS}.get(layer.name, 1e-4)
    if spec.family == "quicknet":
        return KERAS_EPS if layer.stage == STEM else 1e-5
    return EPS.get(spec.family, KERAS_EPS)
