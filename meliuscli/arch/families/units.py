"""What the stages of MeliusNet and BinaryDenseNet are made of, and the layers of each: units and transitions."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from meliuscli.arch.plan import (
    Layer,
    batch_norm,
    binary_conv,
    concat,
    conv_size,
    elementwise,
    place_name,
    placed,
    require_divides,
    require_size,
)


class DenseUnit(NamedTuple):
    """Batch norm, sign and binary 3x3 convolution of ``channels`` to ``growth``: a DenseBlock, whose output lies behind
    what it saw, or an ImprovementBlock, whose output is added to the last channels of that (``adds``)."""

    stage: str
    block: int
    channels: int
    growth: int
    size: int
    dilation: int
    adds: bool

    @property
    def kind(self) -> str:
        return "improvement" if self.adds else "dense"

    @property
    def name(self) -> str:
        return f"{place_name(self.stage, self.block)}.{self.kind}"


class Transition(NamedTuple):
    """Batch norm, max pooling of a map of ``size`` where it ``pools``, float 1x1 convolution."""

    name: str
    channels: int
    target: int
    groups: int
    size: int
    pools: bool

    @property
    def out_size(self) -> int:
        return conv_size(self.size, 2, 2, 0) if self.pools else self.size


class DenseStage(NamedTuple):
    """Units on a map of ``size`` that grows to ``channels``, and the transition behind it (None behind the last)."""

    name: str
    units: tuple[DenseUnit, ...]
    channels: int
    size: int
    transition: Transition | None


@lru_cache(maxsize=2**14)
def unit_layers(unit: DenseUnit) -> tuple[Layer, ...]:
    """The layers of a unit; kept, since the networks of a search have most of their units in common."""
    return tuple(placed(_unit(unit), unit.stage, unit.block))


def _unit(unit: DenseUnit) -> Iterator[Layer]:
    yield batch_norm(f"{unit.kind}.bn", unit.channels, unit.size)
    yield binary_conv(f"{unit.kind}.conv", unit.channels, unit.growth, unit.size, dilation=unit.dilation)
    if unit.adds:
        yield elementwise(f"{unit.kind}.add", "add", unit.growth, unit.size)
    yield concat(f"{unit.kind}.concat", unit.channels + (0 if unit.adds else unit.growth), unit.size)


def transition_layers(transition: Transition) -> Iterator[Layer]:
    """The layers of a transition."""
    return placed(_transition(transition), transition.name)


def _transition(transition: Transition) -> Iterator[Layer]:
    name, channels, target, groups, size, pools = transition
    require_divides("groups", groups, **{f"input_channels_of_{name}": channels, f"output_channels_of_{name}": target})
    yield batch_norm("bn", channels, size)
    if pools:
        require_size(size, 2, f"the pooling of {name}")
        yield Layer("pool", "max_pool", channels, channels, transition.out_size, kernel=2, stride=2)
    yield elementwise("relu", "relu", channels, transition.out_size)
    yield Layer("conv", "conv", channels, target, transition.out_size, groups=groups)
