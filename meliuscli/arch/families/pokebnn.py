"""PokeBNN (arXiv 2112.00133): ResNet-50's layout of binary convolutions, 4-bit squeeze-and-excite, 8-bit ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from meliuscli.arch.families.mobilenet import pop_width_multiplier
from meliuscli.arch.families.parts import check_length, classifier_head
from meliuscli.arch.narrowing import narrow
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
from meliuscli.arch.spec import ArchSpec, Count, Width

CHANNELS = (64, 128, 256, 512)
EXPANSION = 4
REDUCTION = 8
END_BITS, EXCITE_BITS = 8, 4


class PokeBNNSpec(ArchSpec):
    """``channels`` are the inner widths of the stages' bottlenecks; four times as many leave them. As input only,
    ``width_multiplier`` scales them, truncated to integers; the stem keeps its width."""

    scale: ClassVar[str] = "width_multiplier"
    ratios: ClassVar[Mapping[str, tuple[str, ...]]] = {"width_multiplier": ("channels",)}
    letters: ClassVar[Mapping[str, str]] = {"num_blocks": "", "channels": "c", "stem_channels": "s"}
    widths: ClassVar[tuple[str, ...]] = ("channels", "stem_groups", "stem_channels")
    family: Literal["pokebnn"] = "pokebnn"
    num_blocks: Annotated[tuple[Count, ...], Field(min_length=1, max_length=64)] = (3, 4, 6, 3)
    channels: tuple[Width, ...]
    stem_groups: Width = 32
    stem_channels: Width = 64

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        fields = dict(fields)
        alpha = pop_width_multiplier(fields)
        fields.setdefault("channels", tuple(int(width * alpha) for width in CHANNELS))
        return fields

    def narrowed(self, divisor: int) -> Self:
        """All widths divided, rounded up; the stem's to a multiple of its groups, which are a width too."""
        groups = narrow(self.stem_groups, divisor)
        return self.replace(
            stem_groups=groups,
            stem_channels=narrow(self.stem_channels, divisor, groups),
            channels=tuple(narrow(width, divisor) for width in self.channels),
        )

    def layers(self) -> tuple[Layer, ...]:
        check_length("channels", self.channels, len(self.num_blocks), "stage")
        require_divides("stem_channels", self.stem_groups, stem_channels=self.stem_channels)
        return tuple(self._unroll())

    def _unroll(self) -> Iterator[Layer]:
        require_size(self.input_size, 4, "the 4x4 convolution of the stem")
        size, width = self.input_size // 4, self.stem_channels
        yield from placed(self._stem(size), STEM)
        for stage, (num, inner) in enumerate(zip(self.num_blocks, self.channels, strict=True), start=1):
            for block in range(1, num + 1):
                stride = 2 if stage > 1 and block == 1 else 1
                after = conv_size(size, 3, stride, 1)
                yield from placed(_bottleneck(width, inner, stride, size, after), f"stage{stage}", block)
                width, size = EXPANSION * inner, after
        yield from classifier_head(width, size, self.num_classes, bits=END_BITS)

    def _stem(self, size: int) -> Iterator[Layer]:
        groups, width = self.stem_groups, self.stem_channels
        yield integer_conv("conv1", self.input_channels, groups, size, END_BITS, kernel=4, stride=4)
        yield batch_norm("bn1", groups, size)
        yield _dprelu("act1", groups, size)
        yield integer_conv("conv2", groups, width, size, END_BITS, kernel=3, groups=groups)
        yield batch_norm("bn2", width, size)
        yield _dprelu("act2", width, size)


def _bottleneck(channels: int, inner: int, stride: int, size: int, after: int) -> Iterator[Layer]:
    yield from _poke("unit1", channels, inner, 1, size, size)
    yield from _poke("unit2", inner, inner, 3, size, after)
    yield from _poke("unit3", inner, EXPANSION * inner, 1, after, after, stride)


def _poke(
    name: str, channels: int, width: int, kernel: int, size: int, after: int, block_stride: int | None = None
) -> Iterator[Layer]:
    stride, narrow = 2 if after < size else 1, max(channels // REDUCTION, 1)
    yield binary_conv(f"{name}.conv", channels, width, after, kernel=kernel, stride=stride)
    yield batch_norm(f"{name}.bn1", width, after)
    if stride > 1:
        yield Layer(f"{name}.pool", "avg_pool", width, width, after, kernel=3, stride=2)
    yield elementwise(f"{name}.add", "add", width, after)
    if block_stride is not None:
        if block_stride > 1:
            yield Layer(f"{name}.pool_block", "avg_pool", width, width, after, kernel=3, stride=2)
        yield elementwise(f"{name}.add_block", "add", width, after)
    yield _dprelu(f"{name}.act", width, after)
    yield Layer(f"{name}.excite.pool", "avg_pool", channels, channels, 1, kernel=size)
    yield integer_conv(f"{name}.excite.reduce", channels, narrow, 1, EXCITE_BITS, bias=True)
    yield elementwise(f"{name}.excite.relu", "relu", narrow, 1)
    yield integer_conv(f"{name}.excite.expand", narrow, width, 1, EXCITE_BITS, bias=True)
    yield elementwise(f"{name}.excite.multiply", "multiply", width, after)
    yield batch_norm(f"{name}.bn2", width, after)


def _dprelu(name: str, channels: int, size: int) -> Layer:
    """Two slopes and two shifts a channel."""
    return Layer(name, "prelu", channels, channels, size, params=4 * channels, work=1)


def integer_conv(
    name: str,
    channels: int,
    width: int,
    size: int,
    num_bits: int,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    bias: bool = False,
) -> Layer:
    """A convolution of integers of ``num_bits``, weights and activations."""
    return Layer(
        name,
        "conv",
        channels,
        width,
        size,
        kernel=kernel,
        stride=stride,
        groups=groups,
        bias=bias,
        weight_bits=num_bits,
        activation_bits=num_bits,
    )
