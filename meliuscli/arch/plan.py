"""A spec unrolled: the layers of a network in order, each with what counting needs to know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from meliuscli.errors import SpecError

LayerKind = Literal["conv", "binary_conv", "linear", "batch_norm", "max_pool", "avg_pool"]


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer. ``name`` is the module's qualified name in the torch network; ``out_size`` is the height
    and width of its (square) output, 1 for a linear layer."""

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

    @property
    def output(self) -> tuple[int, ...]:
        """Output shape without the batch: (channels, height, width), or (classes,) for a linear layer."""
        if self.kind == "linear":
            return (self.out_channels,)
        return (self.out_channels, self.out_size, self.out_size)


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
    """Refuse groups that do not divide a channel count; ``key`` is the field at fault."""
    for what, count in channels.items():
        if count % groups:
            raise SpecError(key, f"{groups} groups do not divide the {count} {what.replace('_', ' ')}")
