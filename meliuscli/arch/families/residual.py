"""What residual networks have in common: stem, stages of blocks, classifier."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar

from pydantic import Field

from meliuscli.arch.families.parts import (
    GROUPED_STEM_MULTIPLE,
    THUMBNAIL,
    Activation,
    Stem,
    check_length,
    classifier_head,
    stem_layers,
)
from meliuscli.arch.plan import (
    Layer,
    conv_size,
    placed,
)
from meliuscli.arch.spec import ArchSpec, Count, Width

EXPANSION = 4
"""Output channels of a bottleneck for each inner one."""


class ResidualSpec(ArchSpec):
    """Stem, stages of blocks, classifier. Every stage but the first halves the map in its first block; the pooling of a
    shortcut rounds odd maps up, as the strided convolution does. ``channels`` are the widths that leave the stages."""

    stem_activation: ClassVar[Activation] = "relu"
    head_norm: ClassVar[bool] = False
    head_relu: ClassVar[bool] = False
    letters: ClassVar[Mapping[str, str]] = {"num_blocks": "", "channels": "c", "stem_channels": "s"}
    widths: ClassVar[tuple[str, ...]] = ("stem_channels", "channels")
    small_images: ClassVar[Mapping[str, str | int]] = THUMBNAIL

    num_blocks: Annotated[tuple[Count, ...], Field(min_length=1, max_length=64)]
    channels: tuple[Width, ...] = (64, 128, 256, 512)
    stem: Stem = "imagenet"
    stem_channels: Width = 64

    def multiple_of(self, key: str) -> int:
        grouped = key == "stem_channels" and self.stem == "grouped"
        return math.lcm(GROUPED_STEM_MULTIPLE if grouped else 1, self._multiple_of_a_block())

    def _multiple_of_a_block(self) -> int:
        """What the widths around a block are multiples of."""
        return EXPANSION if getattr(self, "block", "basic") == "bottleneck" else 1

    def layers(self) -> tuple[Layer, ...]:
        check_length("channels", self.channels, len(self.num_blocks), "stage")
        return tuple(self._unroll())

    def _unroll(self) -> Iterator[Layer]:
        size, channels = self.input_size, self.stem_channels
        for layer in self._stem():
            yield layer
            size = layer.out_size
        for stage, (num, width) in enumerate(zip(self.num_blocks, self.channels, strict=True), start=1):
            for block in range(1, num + 1):
                stride = 2 if stage > 1 and block == 1 else 1
                unroll = self._first_block if stage == block == 1 else self._block
                yield from placed(unroll(channels, width, stride, size), f"stage{stage}", block)
                size, channels = conv_size(size, 3, stride, 1), width
        yield from classifier_head(channels, size, self.num_classes, norm=self.head_norm, relu=self.head_relu)

    def _stem(self) -> Iterator[Layer]:
        return stem_layers(self, self.stem, self.stem_channels, self.stem_activation)

    @abstractmethod
    def _block(self, channels: int, width: int, stride: int, size: int) -> Iterator[Layer]:
        """One block on a map of ``size``; its layers have names within the block."""

    def _first_block(self, channels: int, width: int, stride: int, size: int) -> Iterator[Layer]:
        """The very first block, where it is not like the others."""
        return self._block(channels, width, stride, size)
