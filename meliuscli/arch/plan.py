"""A spec unrolled: the layers of a network in order, each with what counting needs to know."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from meliuscli.errors import SpecError

LayerKind = Literal[
    "conv",
    "linear",
    "batch_norm",
    "max_pool",
    "avg_pool",
    "parameters",
    "prelu",
    "relu",
    "relu6",
    "add",
    "multiply",
    "concat",
]
FLOAT_BITS = 32
STEM, HEAD = "stem", "head"
"""The stages in front of the first one and behind the last, in every family that has a name for them."""


class Layer(NamedTuple):
    """One layer. ``name`` is the module's qualified name in the torch network (elementwise layers without parameters
    have names of their own); ``out_size`` is the height and width of its (square) output, 1 for a linear layer.
    ``stage`` is the part of the network that it lies in (stem, stages, transitions, head), and ``block`` the number of
    its block in there, from 1 on, or 0 outside of blocks.

    ``weight_bits`` and ``activation_bits`` are those of a convolution's or linear layer's operands. ``params`` are the
    learnable values of a ``parameters`` or ``prelu`` layer, and ``work`` its additions and multiplications an element.
    ``calls`` is how often the weights of a convolution are used for one image, each time on another map.
    ``stored`` is how many values a channel of batch norm keeps on disk: mean, variance and, where it has them, scale and
    shift."""

    name: str
    kind: LayerKind
    in_channels: int
    out_channels: int
    out_size: int
    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    bias: bool = False
    weight_bits: int = FLOAT_BITS
    activation_bits: int = FLOAT_BITS
    params: int = 0
    work: int = 0
    stored: int = 4
    calls: int = 1
    stage: str = ""
    block: int = 0

    @property
    def weights(self) -> int:
        """Of a convolution or linear layer, without its bias."""
        return self.kernel**2 * self.in_channels * self.out_channels // self.groups

    @property
    def macs(self) -> int:
        """Of a convolution or linear layer, for one image."""
        return self.weights * self.out_size**2 * self.calls

    @property
    def output(self) -> tuple[int, ...]:
        """Output shape without the batch: (channels, height, width), or (classes,) for a linear layer."""
        if self.kind == "linear":
            return (self.out_channels,)
        return (self.out_channels, self.out_size, self.out_size)


def place_name(stage: str, block: int = 0) -> str:
    """``stage1`` or ``stage1.block2``: the module that a stage, or a block of it, is in the torch network."""
    return f"{stage}.block{block}" if block else stage


def placed(layers: Iterable[Layer], stage: str, block: int = 0) -> Iterator[Layer]:
    """Layers that are named within a stage, or within a block of it, at their place in the network."""
    prefix = place_name(stage, block)
    for layer in layers:
        yield layer._replace(name=f"{prefix}.{layer.name}" if layer.name else prefix, stage=stage, block=block)


def binary_conv(
    name: str, in_channels: int, out_channels: int, size: int, kernel: int = 3, stride: int = 1, dilation: int = 1
) -> Layer:
    """A convolution of one-bit weights and one-bit activations."""
    return Layer(
        name,
        "conv",
        in_channels,
        out_channels,
        size,
        kernel=kernel,
        stride=stride,
        dilation=dilation,
        weight_bits=1,
        activation_bits=1,
    )


def batch_norm(name: str, channels: int, size: int, *, stored: int = 4) -> Layer:
    """Batch norm; ``stored`` is 3 without scale and 2 without scale and shift."""
    return Layer(name, "batch_norm", channels, channels, size, stored=stored)


def elementwise(name: str, kind: LayerKind, channels: int, size: int) -> Layer:
    """ReLU, an addition or a multiplication of whole maps: nothing but elementwise work."""
    return Layer(name, kind, channels, channels, size)


def concat(name: str, channels: int, size: int) -> Layer:
    """Maps side by side, ``channels`` in all: no work, but what comes out."""
    return Layer(name, "concat", channels, channels, size)


def shift(name: str, channels: int, size: int) -> Layer:
    """A learnable addition a channel, in front of a sign."""
    return Layer(name, "parameters", channels, channels, size, params=channels, work=1)


def prelu(name: str, channels: int, size: int) -> Layer:
    """PReLU: one slope a channel."""
    return Layer(name, "prelu", channels, channels, size, params=channels)


def rprelu(name: str, channels: int, size: int) -> Layer:
    """RPReLU: PReLU between two shifts."""
    return Layer(name, "prelu", channels, channels, size, params=3 * channels, work=2)


def conv_size(size: int, kernel: int, stride: int, padding: int, dilation: int = 1) -> int:
    """Output height of a convolution or pooling, floor mode."""
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def require_size(size: int, at_least: int, where: str) -> None:
    """Refuse a feature map that is too small to go on with."""
    if size < at_least:
        raise SpecError(
            "input_size", f"too small: {size}x{size} is left before {where}, which needs {at_least}x{at_least}"
        )


def require_divides(key: str, groups: int, **channels: int) -> None:
    """Refuse groups (or a reduction) that do not divide a channel count; ``key`` is the field at fault."""
    for what, count in channels.items():
        if count % groups:
            raise SpecError(key, f"the {count} {what.replace('_', ' ')} are not divisible by {groups}")
