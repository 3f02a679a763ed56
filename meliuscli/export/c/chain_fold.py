"""The chain of steps of a residual or small network, folded from its module."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from meliuscli.arch.families.dense import DenseFamilySpec
from meliuscli.arch.families.resnet import BiRealNetSpec, ResNetESpec, ResNetSpec
from meliuscli.arch.families.small import CNV_POOLED, INPUT_BITS, VGG_POOLED, FinnConvSpec, FinnDenseSpec, VGGSmallSpec
from meliuscli.arch.plan import HEAD, STEM
from meliuscli.arch.spec import ArchSpec
from meliuscli.counting.memory_chain import runs_as_chain
from meliuscli.errors import BadInputError
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
    Weights,
)
from meliuscli.export.c.chain_residual import residual_steps
from meliuscli.packed.fold import folded_conv, linear_of, part, scale_and_shift
from meliuscli.packed.layout import Window
from meliuscli.packed.program import Array
from meliuscli.packed.words import BinaryWeights, pack_bits

Chained = ResNetESpec | BiRealNetSpec | ResNetSpec | FinnDenseSpec | FinnConvSpec | VGGSmallSpec
CHAINED = "MeliusNet, BinaryDenseNet, ResNetE, Bi-Real Net, float ResNet, VGG-Small and FINN's networks"


def require_chained(spec: ArchSpec) -> Chained:
    """Raises ``BadInputError`` for a network that no chain is made of."""
    if not runs_as_chain(spec):
        what = f"networks with {_foreign(spec)}" if isinstance(spec, DenseFamilySpec) else spec.family
        raise BadInputError(f"--to c: for {CHAINED}, not for {what}")
    assert isinstance(spec, Chained)
    return spec


def _foreign(spec: DenseFamilySpec) -> str:
    """The fields that no kernel in C has, as a TOML file has them."""
    ours = {"padding": "symmetric", "stem_pool": 3, "pad_value": -1}
    set_ = {name: getattr(spec, name) for name, own in ours.items() if getattr(spec, name) != own}
    return " and ".join(f"{name} = {json.dumps(value)}" for name, value in set_.items())


@torch.no_grad()
def fold_chain(network: nn.Module, spec: ArchSpec, weights: Weights) -> Chain:
    """The chain of a network in eval mode; ``weights`` are its binary convolutions' by name (``fold_convs``).

    Raises ``BadInputError`` as ``require_chained``."""
    spec = require_chained(spec)
    if isinstance(spec, ResNetESpec | BiRealNetSpec | ResNetSpec):
        steps = tuple(residual_steps(network, spec, weights))
    elif isinstance(spec, FinnDenseSpec):
        signs = SignTable(spec.input_channels * spec.input_size**2)
        first = SignStep("image.signs", STEM, IMAGE, "image.signs", 1, 1, signs)
        steps = (first, *_binary_layers(network, spec, weights, "image.signs", 1, np.zeros(0)))
    else:
        steps = tuple(_plain(network, spec, weights))
    return Chain(spec, steps, _channels(steps))


def _channels(steps: tuple[ChainStep, ...]) -> dict[str, int]:
    channels: dict[str, int] = {}
    for step in steps:
        if isinstance(step, StemStep):
            channels[step.target] = len(step.convs[-1].weight)
        elif isinstance(step, SignStep):
            channels[step.target] = step.signs.channels
        elif isinstance(step, ShortcutStep):
            channels[step.target] = step.channels[1]
        elif isinstance(step, FloatStep | HeadStep):
            channels[step.target] = len(step.weight)
        elif isinstance(step, BinaryStep):
            channels[step.target] = step.weights.outputs
    return channels


def _whole(table: SignTable, most: int, steps: int = 1) -> SignTable:
    """The same for whole numbers between -most and most, in multiples of 1 / ``steps``: the largest value stands for never."""
    assert table.values is not None
    with np.errstate(invalid="ignore", over="ignore"):
        whole = np.clip(np.ceil(table.values.astype(np.float64) * steps), -most, most + 1)
    return replace(table, values=np.where(np.isnan(whole), most + 1, whole).astype(np.int32))


def _plain(network: nn.Module, spec: FinnConvSpec | VGGSmallSpec, weights: Weights) -> Iterator[ChainStep]:
    """CNV's convolutions and dense layers, VGG-Small's convolutions and classifier."""
    pooled, norm_first = (CNV_POOLED, True) if isinstance(spec, FinnConvSpec) else (VGG_POOLED, False)
    source, size, count = IMAGE, spec.input_size, len(spec.channels)
    for index in range(1, count + 1):
        stage = STEM if index == 1 else f"conv{index}"
        norm, pools, target = part(network, f"{stage}.bn", nn.BatchNorm2d), index in pooled, f"{stage}.signs"
        if index == 1 and isinstance(spec, VGGSmallSpec):
            conv = part(network, f"{stage}.conv", nn.Conv2d)
            only = StemConv(f"{stage}.conv", *folded_conv(conv, None), 1, 1, False)
            signs = SignTable.of(norm, norm.num_features)
            yield StemStep(stage, stage, source, target, size, size, (only,), False, signs=signs)
        else:
            own = _first_of_cnv(network) if index == 1 else weights[f"{stage}.conv"]
            step = _layer(stage, source, target, size, own, norm, 2 ** (INPUT_BITS - 1) if index == 1 else 0)
            step = replace(step, pools=pools, norm_first=norm_first and pools)
            step = replace(step, out_size=step.conv_size // 2 if pools else step.conv_size)
            if index == count and isinstance(spec, VGGSmallSpec):
                step = replace(step, signs=None, affine=scale_and_shift(norm), relu=True, target=f"{stage}.map")
            yield step
            size = step.out_size
        source = f"{stage}.map" if index == count and isinstance(spec, VGGSmallSpec) else target
    if isinstance(spec, VGGSmallSpec):
        yield _flat_head(network, source, size, spec.channels[-1])
    else:
        yield from _binary_layers(network, spec, weights, source, size, np.arange(spec.channels[-1]))


def _first_of_cnv(network: nn.Module) -> BinaryWeights:
    """Of the convolution whose activations are 8-bit pixels."""
    conv = network.get_submodule(f"{STEM}.conv")
    bits = (conv.quantizer(conv.weight) > 0).permute(0, 2, 3, 1).numpy()  # type: ignore[operator]
    return BinaryWeights(pack_bits(bits), bits.shape[3], Window(3), pad_value=0)


def _layer(
    stage: str, source: str, target: str, size: int, weights: BinaryWeights, norm: nn.BatchNorm2d, steps: int = 0
) -> BinaryStep:
    """A convolution whose batch norm and sign are thresholds of its whole numbers."""
    step = BinaryStep(f"{stage}.conv", stage, source, target, size, 0, weights, steps=steps)
    signs = _whole(SignTable.of(norm, norm.num_features), step.most, max(steps, 1))
    return replace(step, signs=signs, out_size=step.conv_size)


def _binary_layers(
    network: nn.Module, spec: FinnDenseSpec | FinnConvSpec, weights: Weights, source: str, size: int, channels: Array
) -> Iterator[ChainStep]:
    """Binary dense layers; the first one sees a whole map as a window of its size, where there is one."""
    stages = [layer.stage for layer in spec.layers() if layer.kind == "conv" and layer.kernel == 1]
    for stage in stages:
        own = weights[f"{stage}.conv"]
        if stage == stages[0] and len(channels):
            own = _as_window(own, size, len(channels))
        norm, target = part(network, f"{stage}.bn", nn.BatchNorm2d), LOGITS if stage == HEAD else f"{stage}.signs"
        step = _layer(stage, source, target, size, own, norm)
        if stage == HEAD:
            step = replace(step, signs=None, affine=scale_and_shift(norm))
        yield step
        source, size = target, 1


def _as_window(weights: BinaryWeights, size: int, channels: int) -> BinaryWeights:
    """A dense layer of a flattened map, (channels, rows, columns), as a convolution of the map."""
    signs = weights.signs().reshape(weights.outputs, channels, size, size).transpose(0, 2, 3, 1)
    return replace(weights, words=pack_bits(signs > 0), channels=channels, window=replace(weights.window, kernel=size))


def _flat_head(network: nn.Module, source: str, size: int, channels: int) -> HeadStep:
    """The classifier of VGG-Small, its weights in the order of a map's pixels."""
    fc = part(network, f"{HEAD}.fc", nn.Linear)
    weight, bias = linear_of(fc)
    weight = weight.reshape(-1, channels, size**2).transpose(0, 2, 1).reshape(len(weight), -1).copy()
    return HeadStep(HEAD, HEAD, source, LOGITS, size, 1, weight, bias, False, False)
