"""QuickNet (larq-zoo v1, arXiv 2011.09398, section 4): residual binary 3x3 convolutions, blurred float transitions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from meliuscli.arch.families.parts import check_length, classifier_head
from meliuscli.arch.narrowing import narrow_all
from meliuscli.arch.plan import (
    STEM,
    Layer,
    batch_norm,
    binary_conv,
    conv_size,
    elementwise,
    placed,
    require_divides,
    require_size,
)
from meliuscli.arch.spec import ArchSpec, Count, Padding, Width

STEM_REDUCTION = 4
"""The stem's first convolutions have the first section's channels divided by this."""


class QuickNetSpec(ArchSpec):
    """``num_blocks`` and ``channels`` are those of the sections. The blur's fixed kernels count as float weights. ``padding``
    "same" is larq-zoo's, of which the stem's convolutions and the blurs have their border."""

    letters: ClassVar[Mapping[str, str]] = {"num_blocks": "", "channels": "c"}
    widths: ClassVar[tuple[str, ...]] = ("channels",)
    later: ClassVar[tuple[str, ...]] = ("padding",)

    family: Literal["quicknet"] = "quicknet"
    num_blocks: Annotated[tuple[Count, ...], Field(min_length=1, max_length=64)] = (4, 4, 4, 4)
    channels: tuple[Width, ...] = (64, 128, 256, 512)
    padding: Padding = "symmetric"

    def narrowed(self, divisor: int) -> Self:
        """The same sections, the first with a multiple of four channels (a quarter of them is the stem's)."""
        first, *others = self.channels
        small = narrow_all([(first, STEM_REDUCTION), *((width, 1) for width in others)], divisor)
        return self.replace(channels=tuple(small[width] for width in self.channels))

    def layers(self) -> tuple[Layer, ...]:
        check_length("channels", self.channels, len(self.num_blocks), "section")
        require_divides("channels", STEM_REDUCTION, channels_of_the_first_section=self.channels[0])
        return tuple(self._unroll())

    def _unroll(self) -> Iterator[Layer]:
        width = self.channels[0]
        size = conv_size(conv_size(self.input_size, 3, 2, 1), 3, 2, 1)
        yield from placed(self._stem(width), STEM)
        for stage, (num, channels) in enumerate(zip(self.num_blocks, self.channels, strict=True), start=1):
            if channels != width:
                name = f"transition{stage - 1}"
                for layer in placed(self._transition(name, width, channels, size), name):
                    yield layer
                    size = layer.out_size
                width = channels
            for block in range(1, num + 1):
                yield from placed(self._block(width, size), f"stage{stage}", block)
        yield from classifier_head(width, size, self.num_classes, relu=True)

    def _stem(self, width: int) -> Iterator[Layer]:
        narrow, size = width // STEM_REDUCTION, conv_size(self.input_size, 3, 2, 1)
        yield Layer("conv1", "conv", self.input_channels, narrow, size, kernel=3, stride=2)
        yield batch_norm("bn1", narrow, size)
        yield elementwise("relu", "relu", narrow, size)
        size = conv_size(size, 3, 2, 1)
        yield Layer("depthwise", "conv", narrow, narrow, size, kernel=3, stride=2, groups=narrow)
        yield batch_norm("bn2", narrow, size, stored=2)
        yield Layer("conv2", "conv", narrow, width, size)
        yield batch_norm("bn3", width, size)

    @staticmethod
    def _block(width: int, size: int) -> Iterator[Layer]:
        yield binary_conv("conv", width, width, size)
        yield elementwise("relu", "relu", width, size)
        yield batch_norm("bn", width, size)
        yield elementwise("add", "add", width, size)

    @staticmethod
    def _transition(name: str, channels: int, width: int, size: int) -> Iterator[Layer]:
        require_size(size, 2, f"the pooling of {name}")
        yield elementwise("relu", "relu", channels, size)
        yield Layer("pool", "max_pool", channels, channels, size - 1, kernel=2)
        size = conv_size(size - 1, 3, 2, 1)
        yield Layer("blur", "conv", channels, channels, size, kernel=3, stride=2, groups=channels)
        yield Layer("conv", "conv", channels, width, size)
        yield batch_norm("bn", width, size)
