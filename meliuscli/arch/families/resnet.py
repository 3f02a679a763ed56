"""Residual networks: float ResNet (arXiv 1512.03385) and its binary kin: BNN and XNOR-Net (1602.02830, 1603.05279),
Bi-Real Net (1808.00278), ResNetE (1906.08637), Real-to-Binary (2003.11535), ReActNet on Bi-Real-18 (2003.03488)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from meliuscli.arch.families.parts import (
    Activation,
    pooled_shortcut,
    strided_shortcut,
)
from meliuscli.arch.families.residual import EXPANSION, ResidualSpec
from meliuscli.arch.plan import (
    STEM,
    Layer,
    batch_norm,
    binary_conv,
    conv_size,
    elementwise,
    placed,
    prelu,
    require_divides,
    rprelu,
    shift,
)
from meliuscli.arch.spec import Padding, PadValue
from meliuscli.errors import SpecError

SCALING_REDUCTION = 8
"""Real-to-Binary's gating function narrows the channels by this (section 4.3)."""


class BorderedSpec(ResidualSpec):
    """Families that larq-zoo has with TensorFlow's borders."""

    later: ClassVar[tuple[str, ...]] = ("padding",)

    padding: Padding = "symmetric"

    def layers(self) -> tuple[Layer, ...]:
        if self.padding == "same" and (self.stem == "grouped" or getattr(self, "block", "basic") != "basic"):
            raise SpecError("padding", "same is for basic blocks, and not for the grouped stem")
        return super().layers()


class ResNetSpec(ResidualSpec):
    """Float ResNet; bottlenecks have their stride in the 3x3 convolution (torchvision's)."""

    family: Literal["resnet"] = "resnet"
    block: Literal["basic", "bottleneck"] = "basic"

    def _block(self, channels: int, width: int, stride: int, size: int) -> Iterator[Layer]:
        after = conv_size(size, 3, stride, 1)
        if self.block == "basic":
            convs = [(channels, width, 3, stride, after), (width, width, 3, 1, after)]
        else:
            require_divides("channels", EXPANSION, output_channels_of_a_bottleneck=width)
            inner = width // EXPANSION
            convs = [(channels, inner, 1, 1, size), (inner, inner, 3, stride, after), (inner, width, 1, 1, after)]
        for index, (before, behind, kernel, step, out) in enumerate(convs, start=1):
            yield Layer(f"conv{index}", "conv", before, behind, out, kernel=kernel, stride=step)
            yield batch_norm(f"bn{index}", behind, out)
            if index < len(convs):
                yield elementwise(f"relu{index}", "relu", behind, out)
        yield from strided_shortcut(channels, width, stride, after)
        yield elementwise("add", "add", width, after)
        yield elementwise(f"relu{len(convs)}", "relu", width, after)


class XnorResNetSpec(ResidualSpec):
    """ResNet's basic blocks with BN, sign, binary convolution in this order. ``scaling`` multiplies by the mean |weight|
    of a filter and the mean |input| around a position (XNOR-Net, equation 11); without it the network is a BNN. What
    XNOR-Net does at the shortcuts of ResNet-18 is not written down; ``float`` is what Bi-Real Net's author says."""

    head_norm: ClassVar[bool] = True
    head_relu: ClassVar[bool] = True

    family: Literal["xnor-resnet"] = "xnor-resnet"
    scaling: bool = True
    shortcut: Literal["float", "binary"] = "float"

    def _block(self, channels: int, width: int, stride: int, size: int) -> Iterator[Layer]:
        after = conv_size(size, 3, stride, 1)
        yield from self._conv("unit1", channels, width, 3, stride, size, after)
        yield from self._conv("unit2", width, width, 3, 1, after, after)
        if self.shortcut == "float":
            yield from strided_shortcut(channels, width, stride, after)
        elif stride > 1 or channels != width:
            yield from self._conv("shortcut", channels, width, 1, stride, size, after)
        yield elementwise("add", "add", width, after)

    def _conv(
        self, name: str, channels: int, width: int, kernel: int, stride: int, size: int, after: int
    ) -> Iterator[Layer]:
        yield batch_norm(f"{name}.bn", channels, size)
        yield binary_conv(f"{name}.conv", channels, width, after, kernel=kernel, stride=stride)
        if self.scaling:
            yield elementwise(f"{name}.scale_weight", "multiply", width, after)
            yield elementwise(f"{name}.scale_input", "multiply", width, after)


class ResNetESpec(BorderedSpec):
    """ResNetE: a shortcut around every binary convolution, pooled and float where it changes the width (figure 4).
    ``pad_value`` is what lies around a map of signs: -1 as in BMXNet, 0 as in larq-zoo, which has no ``input_norm`` either, and
    ``padding`` "same" for strided convolutions and the stem's pooling."""

    head_relu: ClassVar[bool] = True
    later: ClassVar[tuple[str, ...]] = ("padding", "pad_value")

    family: Literal["resnete"] = "resnete"
    input_norm: bool = True
    pad_value: PadValue = -1

    def _stem(self) -> Iterator[Layer]:
        if self.input_norm:
            yield from placed([batch_norm("", self.input_channels, self.input_size, stored=3)], "input_norm")
        size = self.input_size
        for layer in super()._stem():
            yield layer
            size = layer.out_size
        yield from placed([batch_norm("norm", self.stem_channels, size)], STEM)

    def _block(self, channels: int, width: int, stride: int, size: int) -> Iterator[Layer]:
        after = conv_size(size, 3, stride, 1)
        yield binary_conv("conv", channels, width, after, stride=stride)
        yield batch_norm("bn", width, after)
        yield from pooled_shortcut(channels, width, stride, after)
        yield elementwise("add", "add", width, after)


class BiRealNetSpec(BorderedSpec):
    """Bi-Real Net: a shortcut around every binary convolution. ``reactivation`` adds ReActNet's learnable shifts in
    front of the signs and RPReLU behind the additions. Bottlenecks have two streams (Bi-Real Net, section 3.4 of the
    journal version, arXiv 1811.01335): a narrow one between the inner convolutions and a wide one. ``padding`` "same" is
    larq-zoo's, of which every strided convolution and the stem's pooling have their border."""

    stem_activation: ClassVar[Activation] = "none"

    family: Literal["birealnet"] = "birealnet"
    block: Literal["basic", "bottleneck"] = "basic"
    reactivation: bool = False

    def _block(self, channels: int, width: int, stride: int, size: int) -> Iterator[Layer]:
        if self.block == "basic":
            return self._basic(channels, width, stride, size)
        return self._bottleneck(channels, width, stride, size)

    def _first_block(self, channels: int, width: int, stride: int, size: int) -> Iterator[Layer]:
        if self.block == "basic":
            return self._basic(channels, width, stride, size)
        return self._bottleneck(channels, width, stride, size, is_first=True)

    def _basic(self, channels: int, width: int, stride: int, size: int) -> Iterator[Layer]:
        after = conv_size(size, 3, stride, 1)
        if self.reactivation:
            yield shift("sign", channels, size)
        yield binary_conv("conv", channels, width, after, stride=stride)
        yield elementwise("scale", "multiply", width, after)
        yield batch_norm("bn", width, after)
        yield from pooled_shortcut(channels, width, stride, after)
        yield elementwise("add", "add", width, after)
        if self.reactivation:
            yield rprelu("act", width, after)

    def _bottleneck(
        self, channels: int, width: int, stride: int, size: int, *, is_first: bool = False
    ) -> Iterator[Layer]:
        require_divides("channels", EXPANSION, output_channels_of_a_bottleneck=width)
        inner, after = width // EXPANSION, conv_size(size, 3, stride, 1)
        if is_first:
            yield Layer("conv1", "conv", channels, inner, size)
        else:
            yield binary_conv("conv1", channels, inner, size, kernel=1)
        yield batch_norm("bn1", inner, size)
        if not is_first:
            if channels != width:
                yield Layer("narrow", "conv", channels // EXPANSION, inner, size)
            yield elementwise("add1", "add", inner, size)
        yield binary_conv("conv2", inner, inner, after, stride=stride)
        yield batch_norm("bn2", inner, after)
        if stride > 1:
            yield Layer("pool", "avg_pool", inner, inner, after, kernel=2, stride=2)
        yield elementwise("add2", "add", inner, after)
        yield binary_conv("conv3", inner, width, after, kernel=1)
        yield batch_norm("bn3", width, after)
        yield from pooled_shortcut(channels, width, stride, after)
        yield elementwise("add3", "add", width, after)


class RealToBinarySpec(BorderedSpec):
    """Real-to-Binary Net: BN, sign, binary convolution, a scale a channel that is computed from the convolution's
    input, PReLU, shortcut (sections 4.1 and 4.3). ``padding`` "same" is larq-zoo's, of strided convolutions and the stem's pooling."""

    stem_activation: ClassVar[Activation] = "prelu"

    family: Literal["real2binary"] = "real2binary"

    def _multiple_of_a_block(self) -> int:
        return SCALING_REDUCTION

    def _block(self, channels: int, width: int, stride: int, size: int) -> Iterator[Layer]:
        require_divides("channels", SCALING_REDUCTION, input_channels_of_a_block=channels)
        after, narrow = conv_size(size, 3, stride, 1), channels // SCALING_REDUCTION
        yield batch_norm("bn", channels, size)
        yield binary_conv("conv", channels, width, after, stride=stride)
        yield Layer("scaling.pool", "avg_pool", channels, channels, 1, kernel=size)
        yield Layer("scaling.reduce", "linear", channels, narrow, 1)
        yield elementwise("scaling.relu", "relu", narrow, 1)
        yield Layer("scaling.expand", "linear", narrow, width, 1)
        yield elementwise("scaling.multiply", "multiply", width, after)
        yield prelu("prelu", width, after)
        yield from pooled_shortcut(channels, width, stride, after)
        yield elementwise("add", "add", width, after)
