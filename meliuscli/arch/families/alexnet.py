"""Binary AlexNets as larq-zoo has them: BinaryAlexNet (BNN, arXiv 1602.02830), XNOR-Net (1603.05279), DoReFa-Net
(1606.06160). Five convolutions and three fully connected layers each; they differ in where the rest goes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from meliuscli.arch.families.parts import THUMBNAIL, check_length
from meliuscli.arch.plan import (
    FLOAT_BITS,
    HEAD,
    STEM,
    Layer,
    batch_norm,
    binary_conv,
    conv_size,
    elementwise,
    placed,
    require_size,
)
from meliuscli.arch.spec import ArchSpec, Padding, Width

KERNELS = (5, 3, 3, 3)
"""Of the second to fifth convolution, all with stride 1."""


class AlexNetSpec(ArchSpec):
    """``channels`` are those of the five convolutions, ``hidden`` those of the two fully connected layers. Inputs below
    50 pixels need the ``thumbnail`` stem, 3x3 with stride 1; the other is 11x11 or 12x12 with stride 4."""

    letters: ClassVar[Mapping[str, str]] = {"channels": "c", "hidden": "h"}
    widths: ClassVar[tuple[str, ...]] = ("channels", "hidden")
    small_images: ClassVar[Mapping[str, str | int]] = THUMBNAIL

    channels: tuple[Width, ...]
    hidden: Width = 4096
    stem: Literal["alexnet", "thumbnail"] = "alexnet"

    def layers(self) -> tuple[Layer, ...]:
        check_length("channels", self.channels, 1 + len(KERNELS), "convolution")
        return tuple(self._unroll())

    @abstractmethod
    def _unroll(self) -> Iterator[Layer]: ...

    def _stem_conv(self, kernel: int = 11, weight_bits: int = FLOAT_BITS, bias: bool = False) -> Layer:
        """``same`` padding for 11x11, none for 12x12."""
        size = self.input_size
        if self.stem == "thumbnail":
            return self._stem_layer(size, 3, 1, weight_bits, bias)
        if kernel == 11:
            size = -(-size // 4)
        else:
            require_size(size, kernel, f"the {kernel}x{kernel} convolution")
            size = conv_size(size, kernel, 4, 0)
        return self._stem_layer(size, kernel, 4, weight_bits, bias)

    def _stem_layer(self, size: int, kernel: int, stride: int, weight_bits: int, bias: bool) -> Layer:
        return Layer(
            "conv",
            "conv",
            self.input_channels,
            self.channels[0],
            size,
            kernel=kernel,
            stride=stride,
            weight_bits=weight_bits,
            bias=bias,
        )


def _pool(stage: str, channels: int, size: int) -> Layer:
    """3x3 max pooling, stride 2, no padding."""
    require_size(size, 3, f"the pooling {stage}.pool")
    return Layer("pool", "max_pool", channels, channels, conv_size(size, 3, 2, 0), kernel=3, stride=2)


class BinaryAlexNetSpec(AlexNetSpec):
    """All layers binary, the first with float inputs and the classifier too; BN without scale behind each."""

    family: Literal["binary-alexnet"] = "binary-alexnet"
    channels: tuple[Width, ...] = (64, 192, 384, 384, 256)

    def _unroll(self) -> Iterator[Layer]:
        channels, size = self.input_channels, self.input_size
        for index, width in enumerate(self.channels, start=1):
            stage = STEM if index == 1 else f"conv{index}"
            for layer in placed(self._conv(stage, index, channels, width, size), stage):
                yield layer
                size = layer.out_size
            channels = width
        channels *= size**2
        for index, width in enumerate((self.hidden, self.hidden, self.num_classes), start=6):
            dense = [binary_conv("conv", channels, width, 1, kernel=1), batch_norm("bn", width, 1, stored=3)]
            yield from placed(dense, f"fc{index}")
            channels = width

    def _conv(self, stage: str, index: int, channels: int, width: int, size: int) -> Iterator[Layer]:
        if index == 1:
            yield (conv := self._stem_conv(weight_bits=1))
            size = conv.out_size
        else:
            yield binary_conv("conv", channels, width, size, kernel=KERNELS[index - 2])
        if index in (1, 2, 5):
            yield (pool := _pool(stage, width, size))
            size = pool.out_size
        yield batch_norm("bn", width, size, stored=3)


class XnorAlexNetSpec(AlexNetSpec):
    """First convolution and classifier float; BN (without scale), sign, binary convolution with its scales between."""

    family: Literal["xnor-alexnet"] = "xnor-alexnet"
    channels: tuple[Width, ...] = (96, 256, 384, 384, 256)

    def _unroll(self) -> Iterator[Layer]:
        channels, size = self.channels[0], self.input_size
        for layer in placed(self._stem(), STEM):
            yield layer
            size = layer.out_size
        for index, (width, kernel) in enumerate(zip(self.channels[1:], KERNELS, strict=True), start=2):
            stage = f"conv{index}"
            yield from placed(self._conv(channels, width, size, size, kernel), stage)
            if index in (2, 5):
                yield from placed([pool := _pool(stage, width, size)], stage)
                size = pool.out_size
            channels = width
        yield from placed(self._conv(channels, self.hidden, size, 1, size), "fc6")
        yield from placed(self._conv(self.hidden, self.hidden, 1, 1, 1), "fc7")
        yield from placed(self._head(), HEAD)

    def _stem(self) -> Iterator[Layer]:
        yield (conv := self._stem_conv())
        channels, size = conv.out_channels, conv.out_size
        yield batch_norm("bn", channels, size, stored=3)
        yield elementwise("relu", "relu", channels, size)
        yield _pool(STEM, channels, size)

    def _head(self) -> Iterator[Layer]:
        yield batch_norm("bn", self.hidden, 1, stored=3)
        yield elementwise("relu", "relu", self.hidden, 1)
        yield Layer("fc", "linear", self.hidden, self.num_classes, 1)

    @staticmethod
    def _conv(channels: int, width: int, size: int, after: int, kernel: int) -> Iterator[Layer]:
        yield batch_norm("bn", channels, size, stored=3)
        yield binary_conv("conv", channels, width, after, kernel=kernel)
        yield elementwise("scale", "multiply", width, after)


class DoReFaAlexNetSpec(AlexNetSpec):
    """One-bit weights, activations of ``activation_bits``; first convolution and classifier float, with biases. ``padding``
    "same" is larq-zoo's: the first two poolings have their odd border behind."""

    later: ClassVar[tuple[str, ...]] = ("padding",)

    family: Literal["dorefa-alexnet"] = "dorefa-alexnet"
    channels: tuple[Width, ...] = (96, 256, 384, 384, 256)
    activation_bits: Annotated[int, Field(strict=True, ge=1, le=8)] = 2
    padding: Padding = "symmetric"

    def _unroll(self) -> Iterator[Layer]:
        conv = self._stem_conv(kernel=12, bias=True)
        yield from placed([conv], STEM)
        channels, size = conv.out_channels, conv.out_size
        for index, (width, kernel) in enumerate(zip(self.channels[1:], KERNELS, strict=True), start=2):
            for layer in placed(self._conv(index, channels, width, size, kernel), f"conv{index}"):
                yield layer
                size = layer.out_size
            channels = width
        channels *= size**2
        for index in (6, 7):
            yield from placed(self._dense(channels), f"fc{index}")
            channels = self.hidden
        yield from placed([Layer("fc", "linear", channels, self.num_classes, 1, bias=True)], HEAD)

    def _conv(self, index: int, channels: int, width: int, size: int, kernel: int) -> Iterator[Layer]:
        bits = self.activation_bits
        yield Layer("conv", "conv", channels, width, size, kernel=kernel, weight_bits=1, activation_bits=bits)
        yield batch_norm("bn", width, size, stored=3)
        if index in (2, 3):
            yield Layer("pool", "max_pool", width, width, -(-size // 2), kernel=3, stride=2)
        elif index == 5:
            yield _pool(f"conv{index}", width, size)

    def _dense(self, channels: int) -> Iterator[Layer]:
        bits = self.activation_bits
        yield Layer("linear", "linear", channels, self.hidden, 1, weight_bits=1, activation_bits=bits)
        yield batch_norm("bn", self.hidden, 1, stored=3)
