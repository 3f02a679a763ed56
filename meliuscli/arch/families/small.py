"""Small binary networks that people put on devices: FINN's fully connected TFC, SFC, LFC and its convolutional CNV (arXiv
1612.07119, as Brevitas' ``bnn_pynq`` has them), and VGG-Small for CIFAR (as in LQ-Nets, arXiv 1807.10029, and the binary
networks that followed)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from meliuscli.arch.families.parts import check_length
from meliuscli.arch.plan import HEAD, STEM, Layer, batch_norm, binary_conv, conv_size, elementwise, placed, require_size
from meliuscli.arch.spec import ArchSpec, PadValue, Width

INPUT_BITS = 8
"""Of a pixel that enters CNV: signed, with seven behind the point."""
CNV_POOLED = (2, 4)
"""The convolutions of CNV behind which the map is halved."""
VGG_POOLED = (2, 4, 6)
HiddenWidths = Annotated[tuple[Width, ...], Field(max_length=64)]


class FinnDenseSpec(ArchSpec):
    """Binary dense layers on the signs of all pixels, BN behind each, and no bias. The one behind the classifier is FINN's
    ``TensorNorm``, here with its values a class. ``hidden`` are the widths between."""

    letters: ClassVar[Mapping[str, str]] = {"hidden": "h"}
    widths: ClassVar[tuple[str, ...]] = ("hidden",)

    family: Literal["finn-fc"] = "finn-fc"
    hidden: Annotated[tuple[Width, ...], Field(min_length=1, max_length=64)]
    num_classes: Width = 10
    input_size: Annotated[int, Field(strict=True, ge=1, le=16384)] = 28
    input_channels: Width = 1

    def layers(self) -> tuple[Layer, ...]:
        return tuple(_dense(self.input_channels * self.input_size**2, (*self.hidden, self.num_classes), first=STEM))


class FinnConvSpec(ArchSpec):
    """Six 3x3 convolutions without padding, the first on 8-bit pixels, two halvings, then binary dense layers; BN behind
    each. Weights have one bit, the first's and the classifier's too."""

    letters: ClassVar[Mapping[str, str]] = {"channels": "c", "hidden": "h"}
    widths: ClassVar[tuple[str, ...]] = ("channels", "hidden")

    family: Literal["finn-cnv"] = "finn-cnv"
    channels: tuple[Width, ...] = (64, 64, 128, 128, 256, 256)
    hidden: HiddenWidths = (512, 512)
    num_classes: Width = 10
    input_size: Annotated[int, Field(strict=True, ge=1, le=16384)] = 32

    def layers(self) -> tuple[Layer, ...]:
        check_length("channels", self.channels, 6, "convolution")
        return tuple(self._unroll())

    def _unroll(self) -> Iterator[Layer]:
        channels, size = self.input_channels, self.input_size
        for index, width in enumerate(self.channels, start=1):
            stage = STEM if index == 1 else f"conv{index}"
            require_size(size, 3, f"the convolution {stage}.conv")
            size = conv_size(size, 3, 1, 0)
            conv = binary_conv("conv", channels, width, size)
            layers = [conv._replace(activation_bits=INPUT_BITS) if index == 1 else conv, batch_norm("bn", width, size)]
            if index in CNV_POOLED:
                layers.append(_halving(stage, width, size))
                size //= 2
            yield from placed(layers, stage)
            channels = width
        yield from _dense(channels * size**2, (*self.hidden, self.num_classes))


class VGGSmallSpec(ArchSpec):
    """Six 3x3 convolutions, the first float, in pairs with max pooling behind each pair; BN behind each; a float
    classifier on what is left of the map."""

    letters: ClassVar[Mapping[str, str]] = {"channels": "c"}
    widths: ClassVar[tuple[str, ...]] = ("channels",)

    family: Literal["vgg-small"] = "vgg-small"
    channels: tuple[Width, ...] = (128, 128, 256, 256, 512, 512)
    pad_value: PadValue = 0
    num_classes: Width = 10
    input_size: Annotated[int, Field(strict=True, ge=1, le=16384)] = 32

    def layers(self) -> tuple[Layer, ...]:
        check_length("channels", self.channels, 6, "convolution")
        return tuple(self._unroll())

    def _unroll(self) -> Iterator[Layer]:
        channels, size = self.input_channels, self.input_size
        for index, width in enumerate(self.channels, start=1):
            stage = STEM if index == 1 else f"conv{index}"
            conv = binary_conv("conv", channels, width, size)
            layers = [conv._replace(weight_bits=32, activation_bits=32) if index == 1 else conv]
            if index in VGG_POOLED:
                layers.append(_halving(stage, width, size))
                size //= 2
            yield from placed([*layers, batch_norm("bn", width, size)], stage)
            channels = width
        relu = elementwise("relu", "relu", channels, size)
        fc = Layer("fc", "linear", channels * size**2, self.num_classes, 1, bias=True)
        yield from placed([relu, fc], HEAD)


def _halving(stage: str, width: int, size: int) -> Layer:
    require_size(size, 2, f"the pooling {stage}.pool")
    return Layer("pool", "max_pool", width, width, size // 2, kernel=2, stride=2)


def _dense(channels: int, widths: tuple[int, ...], first: str = "") -> Iterator[Layer]:
    """Binary dense layers, as 1x1 convolutions of a map of one pixel, the last one the head."""
    for index, width in enumerate(widths, start=1):
        stage = HEAD if index == len(widths) else first if first and index == 1 else f"fc{index}"
        yield from placed([binary_conv("conv", channels, width, 1, kernel=1), batch_norm("bn", width, 1)], stage)
        channels = width
