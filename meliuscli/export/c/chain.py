"""A residual or small network as a chain of steps, as values: what the C library is made of, and what ``exact`` runs. Maps
lie pixel by pixel, all channels of one after the other: floats, or packed signs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import nn

from meliuscli.arch.spec import ArchSpec
from meliuscli.packed.fold import thresholds
from meliuscli.packed.layout import Window, num_words
from meliuscli.packed.program import Array
from meliuscli.packed.words import BinaryWeights, pack_bits, unpack_bits

IMAGE, LOGITS = "image", "logits"
Affine = tuple[Array, Array]
"""Scale and shift, one a channel."""
Weights = Mapping[str, BinaryWeights]
"""Binary convolutions by name."""


@dataclass(frozen=True, slots=True)
class SignTable:
    """Where a map's signs turn: +1 where (x >= value) != flip, one a channel; without ``values`` where x >= 0."""

    channels: int
    values: Array | None = None
    flips: Array | None = None

    @classmethod
    def of(cls, norm: nn.Module, channels: int) -> SignTable:
        """Where a batch norm's signs turn."""
        values, flips = thresholds(norm, channels)
        return cls(channels, values, pack_bits(flips))

    @property
    def words(self) -> int:
        return num_words(self.channels)

    def flip_bits(self) -> Array:
        """(channels,) of booleans."""
        if self.flips is None:
            return np.zeros(self.channels, bool)
        return unpack_bits(self.flips, self.channels)


@dataclass(frozen=True, slots=True)
class StemConv:
    """A convolution with its batch norm: (outputs, inputs a group, kernel, kernel) weights, bias; ``same``: with TensorFlow's
    border. With ``scale`` weights and what it sees are int8, and what comes out is the nearest whole number to the sum times
    ``scale`` plus ``bias``."""

    name: str
    weight: Array
    bias: Array
    stride: int
    groups: int
    relu: bool
    scale: Array | None = None
    same: bool = False

    @property
    def window(self) -> Window:
        """What of the map an output pixel sees."""
        kernel = self.weight.shape[2]
        return Window(kernel, self.stride, 1, kernel // 2, self.same)


@dataclass(frozen=True, slots=True)
class ChainStep:
    """``source`` and ``target`` name maps of ``size`` and ``out_size`` squared; ``stage`` is the part of the network."""

    name: str
    stage: str
    source: str
    target: str
    size: int
    out_size: int


@dataclass(frozen=True, slots=True)
class StemStep(ChainStep):
    """The image through an affine function, float convolutions, 3x3 max pooling of stride 2 where it ``pools``, and another
    affine function; with ``signs`` these alone are kept. ``same``: the pooling has TensorFlow's border."""

    convs: tuple[StemConv, ...]
    pools: bool
    before: Affine | None = None
    behind: Affine | None = None
    signs: SignTable | None = None
    same: bool = False

    @property
    def pooling(self) -> Window:
        """What of the map behind the convolutions an output pixel sees."""
        return Window(3, 2, 1, 1, self.same) if self.pools else Window(1)

    def sizes(self) -> tuple[int, ...]:
        """Of the image, and of the map behind each convolution."""
        sizes = [self.size]
        for conv in self.convs:
            sizes.append(conv.window.out_size(sizes[-1]))
        return tuple(sizes)


@dataclass(frozen=True, slots=True)
class SignStep(ChainStep):
    """The signs of a float map. The image is one pixel of all its values."""

    signs: SignTable


@dataclass(frozen=True, slots=True)
class ShortcutStep(ChainStep):
    """2x2 average pooling where it ``pools``, of what is there at an odd edge; where it ``clips``, a slope of 0.1 outside of
    [-1, 1]; a float 1x1 convolution. One that only pools has no ``weight``, and as many channels as are ``pooled``."""

    weight: Array | None
    bias: Array | None
    pools: bool
    clips: bool = False
    pooled: int = 0

    @property
    def channels(self) -> tuple[int, int]:
        """That enter, and that leave."""
        return (self.pooled, self.pooled) if self.weight is None else (self.weight.shape[1], len(self.weight))


@dataclass(frozen=True, slots=True)
class FloatStep(ChainStep):
    """A float convolution, (outputs, inputs, kernel, kernel), with its batch norm; where it ``adds``, added to what the target
    holds; ReLU."""

    weight: Array
    bias: Array
    stride: int
    relu: bool
    adds: bool


@dataclass(frozen=True, slots=True)
class BinaryStep(ChainStep):
    """A binary convolution of packed signs; ``out_size`` is that behind 2x2 max pooling where it ``pools``.

    Its whole numbers become signs by ``signs``, whose values are whole, or floats: scale times them plus shift, then
    ``relu``; with ``adds`` added to what the target holds, then ``act`` (RPReLU's gamma, slope and zeta). ``norm_first``: the
    batch norm lies in front of the pooling, which then finds the lowest number where the norm's scale is negative. With
    ``steps`` the source is the image in whole multiples of 1 / ``steps``."""

    weights: BinaryWeights
    pools: bool = False
    signs: SignTable | None = None
    norm_first: bool = False
    affine: Affine | None = None
    relu: bool = False
    adds: bool = False
    act: tuple[Array, Array, Array] | None = None
    steps: int = 0

    @property
    def most(self) -> int:
        """What the whole numbers are in absolute value at most."""
        return self.weights.channels * self.weights.window.kernel**2 * max(self.steps, 1)

    @property
    def conv_size(self) -> int:
        """Of the map that the convolution makes, before pooling."""
        return self.weights.window.out_size(self.size)


@dataclass(frozen=True, slots=True)
class HeadStep(ChainStep):
    """ReLU where there is one, the mean over all pixels where it ``averages``, and a linear layer: (classes, inputs). With
    ``steps``, one a class, weights are int8, and the inputs whole numbers of 1 / ``inverse``."""

    weight: Array
    bias: Array
    relu: bool
    averages: bool
    steps: Array | None = None
    inverse: float = 1.0


@dataclass(frozen=True, slots=True)
class Chain:
    """A network in the order in which it runs. ``channels`` are those of its maps by name."""

    spec: ArchSpec
    steps: tuple[ChainStep, ...]
    channels: Mapping[str, int]

    @property
    def binary(self) -> tuple[BinaryStep, ...]:
        return tuple(step for step in self.steps if isinstance(step, BinaryStep))
