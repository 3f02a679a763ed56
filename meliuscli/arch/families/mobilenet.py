"""MobileNet-v1 (arXiv 1704.04861, table 1) and -v2 (arXiv 1801.04381, table 2): the float peers of the tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from meliuscli.arch.families.parts import check_length, classifier_head
from meliuscli.arch.plan import STEM, Layer, LayerKind, batch_norm, conv_size, elementwise, placed
from meliuscli.arch.spec import ArchSpec, Count, Width
from meliuscli.errors import SpecError

STEM_CHANNELS = 32
CHANNELS = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)

V2_CHANNELS = (16, 24, 32, 64, 96, 160, 320)
V2_HEAD_CHANNELS = 1280

Stride = Annotated[int, Field(strict=True, ge=1, le=2)]


class MobileNetV1Spec(ArchSpec):
    """Stem convolution, then one depthwise and one pointwise convolution a block; BN and ReLU after each.

    As input only, ``width_multiplier`` (the paper's alpha) scales the table's widths, truncated to integers."""

    scale: ClassVar[str] = "width_multiplier"
    ratios: ClassVar[Mapping[str, tuple[str, ...]]] = {"width_multiplier": ("stem_channels", "channels")}
    letters: ClassVar[Mapping[str, str]] = {"channels": "c", "stem_channels": "s"}
    widths: ClassVar[tuple[str, ...]] = ("stem_channels", "channels")
    family: Literal["mobilenet-v1"] = "mobilenet-v1"
    stem_channels: Width
    channels: Annotated[tuple[Width, ...], Field(min_length=1, max_length=1024)]
    strides: tuple[Stride, ...]

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        fields = dict(fields)
        alpha = pop_width_multiplier(fields)
        fields.setdefault("stem_channels", int(STEM_CHANNELS * alpha))
        fields.setdefault("channels", tuple(int(width * alpha) for width in CHANNELS))
        fields.setdefault("strides", STRIDES)
        return fields

    def layers(self) -> tuple[Layer, ...]:
        check_length("strides", self.strides, len(self.channels), "entry of channels")
        return tuple(self._unroll())

    def _unroll(self) -> Iterator[Layer]:
        size, channels = conv_size(self.input_size, 3, 2, 1), self.stem_channels
        yield from placed(_conv_bn("", self.input_channels, channels, size, kernel=3, stride=2), STEM)
        for block, (width, stride) in enumerate(zip(self.channels, self.strides, strict=True), start=1):
            size = conv_size(size, 3, stride, 1)
            yield from placed(self._block(channels, width, stride, size), f"block{block}")
            channels = width
        yield from classifier_head(channels, size, self.num_classes)

    @staticmethod
    def _block(channels: int, width: int, stride: int, size: int) -> Iterator[Layer]:
        yield from _conv_bn("depthwise.", channels, channels, size, kernel=3, stride=stride, groups=channels)
        yield from _conv_bn("pointwise.", channels, width, size)


class MobileNetV2Spec(ArchSpec):
    """Stem convolution, stages of inverted residuals (1x1 up, 3x3 depthwise, linear 1x1 down), a last 1x1 convolution.

    As input only, ``width_multiplier`` scales the table's widths, rounded to multiples of eight and never by more than
    a tenth downwards; the last convolution is not narrowed below 1280."""

    scale: ClassVar[str] = "width_multiplier"
    ratios: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "width_multiplier": ("stem_channels", "channels", "head_channels")
    }
    letters: ClassVar[Mapping[str, str]] = {
        "num_blocks": "",
        "channels": "c",
        "stem_channels": "s",
        "head_channels": "h",
    }
    widths: ClassVar[tuple[str, ...]] = ("stem_channels", "channels", "head_channels")
    family: Literal["mobilenet-v2"] = "mobilenet-v2"
    num_blocks: Annotated[tuple[Count, ...], Field(min_length=1, max_length=64)] = (1, 2, 3, 4, 3, 3, 1)
    expansion: tuple[Width, ...] = (1, 6, 6, 6, 6, 6, 6)
    strides: tuple[Stride, ...] = (1, 2, 2, 2, 1, 2, 1)
    stem_channels: Width
    channels: tuple[Width, ...]
    head_channels: Width

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        fields = dict(fields)
        alpha = pop_width_multiplier(fields)
        fields.setdefault("stem_channels", round_to_eight(STEM_CHANNELS * alpha))
        fields.setdefault("channels", tuple(round_to_eight(width * alpha) for width in V2_CHANNELS))
        fields.setdefault("head_channels", round_to_eight(V2_HEAD_CHANNELS * max(alpha, 1.0)))
        return fields

    def layers(self) -> tuple[Layer, ...]:
        for key in ("expansion", "strides", "channels"):
            check_length(key, getattr(self, key), len(self.num_blocks), "stage")
        return tuple(self._unroll())

    def _unroll(self) -> Iterator[Layer]:
        size, channels = conv_size(self.input_size, 3, 2, 1), self.stem_channels
        stem = _conv_bn("", self.input_channels, channels, size, kernel=3, stride=2, relu="relu6")
        yield from placed(stem, STEM)
        rows = zip(self.num_blocks, self.expansion, self.channels, self.strides, strict=True)
        for stage, (num, expansion, width, first_stride) in enumerate(rows, start=1):
            for block in range(1, num + 1):
                stride = first_stride if block == 1 else 1
                yield from placed(self._block(channels, width, expansion, stride, size), f"stage{stage}", block)
                size, channels = conv_size(size, 3, stride, 1), width
        yield from placed(_conv_bn("", channels, self.head_channels, size, relu="relu6"), "last")
        yield from classifier_head(self.head_channels, size, self.num_classes)

    @staticmethod
    def _block(channels: int, width: int, expansion: int, stride: int, size: int) -> Iterator[Layer]:
        inner = channels * expansion
        if expansion > 1:
            yield from _conv_bn("expand.", channels, inner, size, relu="relu6")
        size = conv_size(size, 3, stride, 1)
        yield from _conv_bn("depthwise.", inner, inner, size, kernel=3, stride=stride, groups=inner, relu="relu6")
        yield from _conv_bn("project.", inner, width, size, relu=None)
        if stride == 1 and channels == width:
            yield elementwise("add", "add", width, size)


def pop_width_multiplier(fields: dict[str, Any]) -> float:
    """Take ``width_multiplier`` out of the fields, 1 where it is not among them."""
    alpha = fields.pop("width_multiplier", 1.0)
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha <= 64:
        raise SpecError("width_multiplier", f"must be a number above 0 and at most 64, not {alpha!r}")
    return float(alpha)


def round_to_eight(width: float) -> int:
    """To the nearest multiple of eight, at least eight, and up when that loses more than a tenth."""
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * width else rounded


def _conv_bn(
    prefix: str,
    channels: int,
    width: int,
    size: int,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    relu: LayerKind | None = "relu",
) -> Iterator[Layer]:
    yield Layer(f"{prefix}conv", "conv", channels, width, size, kernel=kernel, stride=stride, groups=groups)
    yield batch_norm(f"{prefix}bn", width, size)
    if relu is not None:
        yield elementwise(f"{prefix}relu", relu, width, size)
