"""Blocks of several convolutions as steps of a chain: Bi-Real Net's bottlenecks of two streams, and float ResNet's blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from torch import nn

from meliuscli.export.c.chain import (
    Affine,
    BinaryStep,
    ChainStep,
    FloatStep,
    ShortcutStep,
    SignStep,
    SignTable,
)
from meliuscli.packed.fold import folded_conv, part, scale_and_shift
from meliuscli.packed.words import BinaryWeights


def scaled_norm(norm: nn.BatchNorm2d, weights: BinaryWeights) -> Affine:
    """Batch norm of a convolution's whole numbers times its scale."""
    scale, shift = scale_and_shift(norm)
    if weights.scale is not None:
        scale = (scale.astype(np.float64) * weights.scale).astype(np.float32)
    return scale, shift


class _Block:
    """Makes the steps of one block; what they are called begins with its name."""

    def __init__(self, network: nn.Module, name: str, weights: Mapping[str, BinaryWeights]) -> None:
        self.name, self.stage = name, name.partition(".")[0]
        self.module, self.weights = network.get_submodule(name), weights

    def sign(self, number: int, source: str, size: int) -> SignStep:
        signs = SignTable(self.weights[f"{self.name}.conv{number}"].channels)
        target = f"{self.name}.signs{number}"
        return SignStep(f"{self.name}.sign{number}", self.stage, source, target, size, size, signs)

    def binary(self, number: int, target: str, size: int) -> BinaryStep:
        """Of the signs of the same number, added to the target."""
        name, own = f"{self.name}.conv{number}", self.weights[f"{self.name}.conv{number}"]
        affine = scaled_norm(part(self.module, f"bn{number}", nn.BatchNorm2d), own)
        place = (name, self.stage, f"{self.name}.signs{number}", target, size, own.window.out_size(size))
        return BinaryStep(*place, own, affine=affine, adds=True)

    def pointwise(
        self, what: str, norm: str | None, source: str, target: str, size: int, pools: bool = False, clips: bool = False
    ) -> ShortcutStep:
        conv = part(self.module, what, nn.Conv2d)
        weight, bias = folded_conv(conv, None if norm is None else part(self.module, norm, nn.BatchNorm2d))
        place = (f"{self.name}.{what.removesuffix('.conv')}", self.stage, source, target, size, _half(size, pools))
        return ShortcutStep(*place, weight[:, :, 0, 0], bias, pools, clips)

    def pooling(self, source: str, target: str, size: int, channels: int) -> ShortcutStep:
        place = (f"{self.name}.pool", self.stage, source, target, size, _half(size, True))
        return ShortcutStep(*place, None, None, True, pooled=channels)

    def conv(self, what: str, norm: str, source: str, target: str, size: int, relu: bool, adds: bool) -> FloatStep:
        conv = part(self.module, what, nn.Conv2d)
        weight, bias = folded_conv(conv, part(self.module, norm, nn.BatchNorm2d))
        stride = conv.stride[0]
        place = (f"{self.name}.{what}", self.stage, source, target, size, (size - 1) // stride + 1)
        return FloatStep(*place, weight, bias, stride, relu, adds)


def _half(size: int, pools: bool) -> int:
    return -(-size // 2) if pools else size


def bottleneck(
    network: nn.Module, name: str, narrow: str, wide: str, size: int, weights: Mapping[str, BinaryWeights]
) -> Iterator[ChainStep]:
    """Bi-Real Net's: from two streams to two, the targets of ``conv2`` and ``conv3``. The very first has one, and a float ``conv1``."""
    block, stride = _Block(network, name, weights), weights[f"{name}.conv2"].window.stride
    if isinstance(block.module.get_submodule("conv1"), nn.Conv2d):
        narrow = f"{name}.narrow"
        yield block.pointwise("conv1", "bn1", wide, narrow, size, clips=True)
    else:
        yield block.sign(1, wide, size)
        if isinstance(block.module.get_submodule("narrow"), nn.Conv2d):
            yield block.pointwise("narrow", None, narrow, f"{name}.narrow", size)
            narrow = f"{name}.narrow"
        yield block.binary(1, narrow, size)
    yield block.sign(2, narrow, size)
    if stride > 1:
        yield block.pooling(narrow, f"{name}.pooled", size, weights[f"{name}.conv2"].channels)
        narrow = f"{name}.pooled"
    yield block.binary(2, narrow, size)
    after = _half(size, stride > 1)
    yield block.sign(3, narrow, after)
    if isinstance(block.module.get_submodule("shortcut"), nn.Sequential):
        yield block.pointwise("shortcut.conv", "shortcut.bn", wide, f"{name}.map", size, pools=stride > 1)
        wide = f"{name}.map"
    yield block.binary(3, wide, after)


def float_block(network: nn.Module, name: str, stream: str, size: int) -> Iterator[ChainStep]:
    """Float ResNet's, of two convolutions or three: the last one is added to the stream, or to what stands in for it."""
    block, target = _Block(network, name, {}), stream
    if isinstance(block.module.get_submodule("shortcut"), nn.Sequential):
        target = f"{name}.map"
        yield block.conv("shortcut.conv", "shortcut.bn", stream, target, size, relu=False, adds=False)
    count = sum(child.startswith("conv") for child, _ in block.module.named_children())
    for number in range(1, count + 1):
        is_last = number == count
        out = target if is_last else f"{name}.map{number}"
        step = block.conv(f"conv{number}", f"bn{number}", stream, out, size, relu=True, adds=is_last)
        yield step
        stream, size = out, step.out_size
