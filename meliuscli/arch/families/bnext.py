"""BNext (arXiv 2211.12933, section 3): ReActNet's layout with squeeze-and-excite in every unit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from meliuscli.arch.families.parts import classifier_head, strided_stem
from meliuscli.arch.narrowing import doubled_alike, narrow
from meliuscli.arch.plan import (
    HEAD,
    STEM,
    Layer,
    batch_norm,
    binary_conv,
    concat,
    conv_size,
    elementwise,
    placed,
    prelu,
    require_divides,
    shift,
)
from meliuscli.arch.spec import ArchSpec, Width
from meliuscli.errors import SpecError

REDUCTION = 8
"""Squeeze-and-excite narrows the channels by this."""


class BNextSpec(ArchSpec):
    """``channels`` are the widths that leave the blocks: the same as before or twice as many. A block has stride 2 where
    its width changes, except the first. Every second block, from the second on, has an attention unit in place of a
    plain one."""

    letters: ClassVar[Mapping[str, str]] = {"channels": "c", "stem_channels": "s"}
    widths: ClassVar[tuple[str, ...]] = ("stem_channels", "channels")

    family: Literal["bnext"] = "bnext"
    stem_channels: Width
    channels: Annotated[tuple[Width, ...], Field(min_length=1, max_length=1024)]

    def narrowed(self, divisor: int) -> Self:
        """The stem divided (rounded up to a multiple of eight), and every block that doubles doubles."""
        stem = narrow(self.stem_channels, divisor, REDUCTION)
        return self.replace(stem_channels=stem, channels=doubled_alike(self.stem_channels, self.channels, stem))

    def layers(self) -> tuple[Layer, ...]:
        return tuple(self._unroll())

    @property
    def strides(self) -> tuple[int, ...]:
        """Of the blocks."""
        before = (self.stem_channels, *self.channels[:-1])
        return tuple(
            2 if index and width != channels else 1
            for index, (channels, width) in enumerate(zip(before, self.channels, strict=True))
        )

    def _unroll(self) -> Iterator[Layer]:
        channels, size = self.stem_channels, conv_size(self.input_size, 3, 2, 1)
        yield from placed(strided_stem(self.input_channels, channels, size), STEM)
        for index, (width, stride) in enumerate(zip(self.channels, self.strides, strict=True)):
            after = conv_size(size, 3, stride, 1)
            yield from placed(_block(channels, width, size, after, index % 2 == 1), f"block{index + 1}")
            channels, size = width, after
        yield from placed([prelu("prelu", channels, size)], HEAD)
        yield from classifier_head(channels, size, self.num_classes)


def _block(channels: int, width: int, size: int, after: int, attention: bool) -> Iterator[Layer]:
    if width not in (channels, 2 * channels):
        raise SpecError("channels", f"a block keeps or doubles its width: {channels} cannot become {width}")
    require_divides("channels", REDUCTION, input_channels_of_a_block=channels)
    yield from _unit("unit3x3", channels, size, after, 3, attention=attention)
    for copy in ("a", "b") if width != channels else ("",):
        yield from _unit(f"unit1x1{copy}", channels, after, after, 1, attention=False)
    if width != channels:
        yield concat("concat", width, after)


def _unit(name: str, channels: int, size: int, after: int, kernel: int, *, attention: bool) -> Iterator[Layer]:
    stride = 2 if after < size else 1
    if attention:
        yield prelu(f"{name}.residual", channels, size)
    if stride > 1:
        for pool in ("pool", "pool_mix"):
            yield Layer(f"{name}.{pool}", "avg_pool", channels, channels, after, kernel=2, stride=2)
    yield shift(f"{name}.sign", channels, size)
    yield binary_conv(f"{name}.conv", channels, channels, after, kernel=kernel, stride=stride)
    yield batch_norm(f"{name}.bn1", channels, after)
    yield prelu(f"{name}.prelu", channels, after)
    # scale * input + (1 - scale) * output
    yield Layer(f"{name}.mix", "parameters", channels, channels, after, params=channels, work=3)
    narrow = channels // REDUCTION
    yield Layer(f"{name}.excite.pool", "avg_pool", channels, channels, 1, kernel=after)
    yield Layer(f"{name}.excite.reduce", "conv", channels, narrow, 1, bias=True)
    yield elementwise(f"{name}.excite.relu", "relu", narrow, 1)
    yield Layer(f"{name}.excite.expand", "conv", narrow, channels, 1, bias=True)
    yield elementwise(f"{name}.excite.multiply", "multiply", channels, after)
    if attention:
        yield elementwise(f"{name}.multiply", "multiply", channels, after)
    yield batch_norm(f"{name}.bn2", channels, after)
    yield elementwise(f"{name}.add", "add", channels, after)
