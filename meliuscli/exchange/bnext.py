"""BNext's own checkpoints (hpi-xnor/BNext, ``src/bnext.py``) of 1000 classes.

Their buffers ``temperature`` divide the weights in front of a clipped identity, which is the sign where the temperature is
below 1e-7; of the activations the sign is taken at any temperature. The stem has a PReLU that is stored and not used."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from meliuscli.arch.families.bnext import REDUCTION, BNextSpec
from meliuscli.arch.spec import ArchSpec
from meliuscli.arch.zoo import spec_from_fields
from meliuscli.errors import BadInputError
from meliuscli.exchange.reactnet import imagenet_images
from meliuscli.exchange.tensors import Array, Imported, Taker

EPS = 1e-5
BINARY_BELOW = 1e-7
"""Of a temperature: from here on their weights are clipped floats, not signs."""
CLASSES = 1000
"""For any other number their stem has no stride, which the family has."""


def is_bnext(tensors: Mapping[str, Array]) -> bool:
    """Are these the weights of a BNext?"""
    return "feature.1.Attention.move.bias" in tensors


def read_bnext(path: object, tensors: Mapping[str, Array], asked: ArchSpec | None) -> Imported:
    """The network of a file; ``asked`` must be a BNext. Raises ``BadInputError`` where tensors do not fit, and where the
    weights are not binary yet."""
    if asked is not None and not isinstance(asked, BNextSpec):
        raise BadInputError(f"{path}: is a BNext, and --arch a {asked.family}", "leave --arch out")
    spec = _spec_of(path, tensors) if asked is None else asked
    if spec.num_classes != CLASSES:
        raise BadInputError(f"{path}: has {spec.num_classes} classes: BNext's stem differs for others than {CLASSES}")
    taker, channels = Taker(path, tensors), spec.stem_channels
    taker.copy("feature.0.conv1.weight", "stem.conv.weight", (channels, spec.input_channels, 3, 3))
    taker.norm_of_torch("feature.0.bn1", "stem.bn", channels, EPS)
    for index, width in enumerate(spec.channels):
        theirs, ours = f"feature.{index + 1}", f"block{index + 1}"
        _unit(taker, f"{theirs}.Attention", f"{ours}.unit3x3", channels, 3, index % 2 == 1)
        for name, copy in (("FFN_1", "a"), ("FFN_2", "b")) if width != channels else (("FFN", ""),):
            _unit(taker, f"{theirs}.{name}", f"{ours}.unit1x1{copy}", channels, 1, False)
        channels = width
    taker.copy("prelu.weight", "head.prelu.weight", (channels,))
    taker.copy("fc.weight", "head.fc.weight", (spec.num_classes, channels))
    taker.copy("fc.bias", "head.fc.bias", (spec.num_classes,))
    unused = tuple(name for name in tensors if _is_unused(name))
    return Imported(spec, taker.finish(unused), imagenet_images(spec.input_size))


def _is_unused(name: str) -> bool:
    """Stored and not computed with: the stem's PReLU, that of units without attention, and temperatures of activations."""
    return name == "feature.0.prelu.weight" or name.endswith((".activation1.weight", "binary_activation.temperature"))


def _unit(taker: Taker, theirs: str, ours: str, channels: int, kernel: int, attention: bool) -> None:
    narrow = channels // REDUCTION
    if attention:
        taker.copy(f"{theirs}.activation1.weight", f"{ours}.residual.weight", (channels,))
    taker.put(f"{ours}.sign.shift", taker.take(f"{theirs}.move.bias", (1, channels, 1, 1))[0])
    weight = f"{theirs}.binary_conv.weight"
    taker.copy(weight, f"{ours}.conv.weight", (channels, channels, kernel, kernel))
    if f"{theirs}.binary_conv.temperature" in taker.tensors:
        temperature = float(taker.take(f"{theirs}.binary_conv.temperature", (1,))[0])
        if temperature >= BINARY_BELOW and not (np.abs(taker.tensors[weight]) >= temperature).all():
            taker.problems.append(f"{weight} is not binary yet: its temperature is {temperature:.1e}")
    taker.norm_of_torch(f"{theirs}.norm1", f"{ours}.bn1", channels, EPS)
    taker.copy(f"{theirs}.activation2.weight", f"{ours}.prelu.weight", (channels,))
    taker.put(f"{ours}.mix.scale", taker.take(f"{theirs}.scale", (1, channels, 1, 1))[0])
    for number, name, shape in ((1, "reduce", (narrow, channels)), (3, "expand", (channels, narrow))):
        taker.copy(f"{theirs}.se.se.{number}.weight", f"{ours}.excite.{name}.weight", (*shape, 1, 1))
        taker.copy(f"{theirs}.se.se.{number}.bias", f"{ours}.excite.{name}.bias", shape[:1])
    taker.norm_of_torch(f"{theirs}.norm2", f"{ours}.bn2", channels, EPS)


def _spec_of(path: object, tensors: Mapping[str, Array]) -> BNextSpec:
    """Widths from the shifts in front of the blocks, and the classifier's."""
    widths: list[int] = []
    while (bias := tensors.get(f"feature.{len(widths) + 1}.Attention.move.bias")) is not None and bias.ndim == 4:
        widths.append(int(bias.shape[1]))
    last = tensors.get("fc.weight")
    if not widths or last is None or last.ndim != 2:
        raise BadInputError(f"{path}: no BNext: it has no fc.weight or no blocks", "--arch names the network")
    fields = {"family": "bnext", "stem_channels": widths[0], "channels": [*widths[1:], int(last.shape[1])]}
    spec = spec_from_fields({**fields, "num_classes": int(last.shape[0])}, f"{path}: ")
    assert isinstance(spec, BNextSpec)
    return spec
