"""MobileNet-v1 (arXiv 1704.04861, table 1): depthwise separable float convolutions, the float peer of the tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from meliuscli.arch.families.dense import classifier_head
from meliuscli.arch.plan import Layer, conv_size
from meliuscli.arch.spec import ArchSpec, Width
from meliuscli.errors import SpecError

STEM_CHANNELS = 32
CHANNELS = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)


class MobileNetV1Spec(ArchSpec):
    """Stem convolution, then one depthwise and one pointwise convolution a block; BN and ReLU after each.

    As input only, ``width_multiplier`` (the paper's alpha) scales the table's widths, truncated to integers."""

    family: Literal["mobilenet-v1"] = "mobilenet-v1"
    stem_channels: Width
    channels: Annotated[tuple[Width, ...], Field(min_length=1, max_length=1024)]
    strides: tuple[Annotated[int, Field(strict=True, ge=1, le=2)], ...]

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        fields = dict(fields)
        alpha = fields.pop("width_multiplier", 1.0)
        if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha <= 64:
            raise SpecError("width_multiplier", f"must be a number above 0 and at most 64, not {alpha!r}")
        fields.setdefault("stem_channels", int(STEM_CHANNELS * alpha))
        fields.setdefault("channels", tuple(int(width * alpha) for width in CHANNELS))
        fields.setdefault("strides", STRIDES)
        return fields

    def layers(self) -> tuple[Layer, ...]:
        if len(self.strides) != len(self.channels):
            raise SpecError("strides", f"needs {len(self.channels)} entries, one for each entry of channels")
        return tuple(self._unroll())

    def _unroll(self) -> Iterator[Layer]:
        size, channels = conv_size(self.input_size, 3, 2, 1), self.stem_channels
        yield Layer("stem.conv", "conv", self.input_channels, channels, size, kernel=3, stride=2)
        yield Layer("stem.bn", "batch_norm", channels, channels, size)
        for block, (width, stride) in enumerate(zip(self.channels, self.strides, strict=True), start=1):
            size = conv_size(size, 3, stride, 1)
            depthwise, pointwise = f"block{block}.depthwise", f"block{block}.pointwise"
            yield Layer(f"{depthwise}.conv", "conv", channels, channels, size, kernel=3, stride=stride, groups=channels)
            yield Layer(f"{depthwise}.bn", "batch_norm", channels, channels, size)
            yield Layer(f"{pointwise}.conv", "conv", channels, width, size)
            yield Layer(f"{pointwise}.bn", "batch_norm", width, width, size)
            channels = width
        yield from classifier_head(channels, size, self.num_classes, norm=False)
