"""ReActNet-A, -B and -C (arXiv 2003.03488, section 4): MobileNet-v1's layout, binary and with shortcuts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from meliuscli.arch.families.mobilenet import CHANNELS, STRIDES, Stride
from meliuscli.arch.families.parts import check_length, classifier_head, strided_stem
from meliuscli.arch.narrowing import doubled_alike, narrow
from meliuscli.arch.plan import (
    STEM,
    Layer,
    batch_norm,
    binary_conv,
    conv_size,
    elementwise,
    placed,
    require_divides,
    rprelu,
    shift,
)
from meliuscli.arch.spec import ArchSpec, Width
from meliuscli.errors import SpecError


class ReActNetSpec(ArchSpec):
    """A block is a dense 3x3 and a 1x1 convolution, each with a shortcut; where the width doubles, two 1x1 convolutions
    lie side by side. ``widening`` says whether those two are binary (A) or float (B: ``widening_groups`` 4, C: 1)."""

    letters: ClassVar[Mapping[str, str]] = {"channels": "c", "stem_channels": "s"}
    widths: ClassVar[tuple[str, ...]] = ("stem_channels", "channels")

    family: Literal["reactnet"] = "reactnet"
    stem_channels: Width = 32
    channels: Annotated[tuple[Width, ...], Field(min_length=1, max_length=1024)] = CHANNELS
    strides: tuple[Stride, ...] = STRIDES
    widening: Literal["binary", "float"] = "binary"
    widening_groups: Width = 1

    def narrowed(self, divisor: int) -> Self:
        """The stem divided (rounded up to a multiple of ``widening_groups``), and every block that doubles doubles."""
        stem = narrow(self.stem_channels, divisor, self.widening_groups)
        return self.replace(stem_channels=stem, channels=doubled_alike(self.stem_channels, self.channels, stem))

    def layers(self) -> tuple[Layer, ...]:
        check_length("strides", self.strides, len(self.channels), "entry of channels")
        if self.widening == "binary" and self.widening_groups != 1:
            raise SpecError("widening_groups", "only float widening convolutions have groups")
        return tuple(self._unroll())

    def _unroll(self) -> Iterator[Layer]:
        channels, size = self.stem_channels, conv_size(self.input_size, 3, 2, 1)
        yield from placed(strided_stem(self.input_channels, channels, size), STEM)
        for block, (width, stride) in enumerate(zip(self.channels, self.strides, strict=True), start=1):
            yield from placed(self._block(channels, width, stride, size), f"block{block}")
            channels, size = width, conv_size(size, 3, stride, 1)
        yield from classifier_head(channels, size, self.num_classes)

    def _block(self, channels: int, width: int, stride: int, size: int) -> Iterator[Layer]:
        if width not in (channels, 2 * channels):
            raise SpecError("channels", f"a block keeps or doubles its width: {channels} cannot become {width}")
        after = conv_size(size, 3, stride, 1)
        yield shift("sign1", channels, size)
        yield binary_conv("conv1", channels, channels, after, stride=stride)
        yield batch_norm("bn1", channels, after)
        if stride > 1:
            yield Layer("pool", "avg_pool", channels, channels, after, kernel=2, stride=2)
        yield elementwise("add1", "add", channels, after)
        yield rprelu("act1", channels, after)
        doubles = width != channels
        is_float = doubles and self.widening == "float"
        if not is_float:
            yield shift("sign2", channels, after)
        for copy in ("a", "b") if doubles else ("",):
            conv = f"conv2{copy}"
            if is_float:
                require_divides("widening_groups", self.widening_groups, channels=channels)
                yield Layer(conv, "conv", channels, channels, after, groups=self.widening_groups)
            else:
                yield binary_conv(conv, channels, channels, after, kernel=1)
            yield batch_norm(f"bn2{copy}", channels, after)
            yield elementwise(f"add2{copy}", "add", channels, after)
        yield rprelu("act2", width, after)
