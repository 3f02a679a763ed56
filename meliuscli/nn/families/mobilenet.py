"""MobileNet-v1 (arXiv 1704.04861, table 1) and -v2 (arXiv 1801.04381, table 2) as modules."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from meliuscli.arch.families.mobilenet import MobileNetV1Spec, MobileNetV2Spec
from meliuscli.nn.families.parts import build_head
from meliuscli.nn.layers import float_conv


def build(spec: MobileNetV1Spec | MobileNetV2Spec, _clip: float) -> nn.Sequential:
    """Module names are those of ``spec.layers()``."""
    return _first_version(spec) if isinstance(spec, MobileNetV1Spec) else _second_version(spec)


def _first_version(spec: MobileNetV1Spec) -> nn.Sequential:
    channels = spec.stem_channels
    parts: OrderedDict[str, nn.Module] = OrderedDict(stem=_conv_bn(spec.input_channels, channels, 3, 2))
    for block, (width, stride) in enumerate(zip(spec.channels, spec.strides, strict=True), start=1):
        pair: OrderedDict[str, nn.Module] = OrderedDict(
            depthwise=_conv_bn(channels, channels, 3, stride, groups=channels),
            pointwise=_conv_bn(channels, width),
        )
        parts[f"block{block}"] = nn.Sequential(pair)
        channels = width
    parts["head"] = build_head(channels, spec.num_classes)
    return nn.Sequential(parts)


class InvertedResidual(nn.Module):
    """[1x1 up,] 3x3 depthwise, linear 1x1 down, around which goes a shortcut where the shape stays."""

    def __init__(self, channels: int, width: int, expansion: int, stride: int) -> None:
        super().__init__()
        inner = channels * expansion
        self.expand = _conv_bn(channels, inner, act=nn.ReLU6()) if expansion > 1 else nn.Identity()
        self.depthwise = _conv_bn(inner, inner, 3, stride, groups=inner, act=nn.ReLU6())
        self.project = _conv_bn(inner, width, act=None)
        self.residual = stride == 1 and channels == width

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + out if self.residual else out


def _second_version(spec: MobileNetV2Spec) -> nn.Sequential:
    channels = spec.stem_channels
    parts: OrderedDict[str, nn.Module] = OrderedDict(stem=_conv_bn(spec.input_channels, channels, 3, 2, act=nn.ReLU6()))
    rows = zip(spec.num_blocks, spec.expansion, spec.channels, spec.strides, strict=True)
    for stage, (num, expansion, width, first_stride) in enumerate(rows, start=1):
        blocks: OrderedDict[str, nn.Module] = OrderedDict()
        for block in range(1, num + 1):
            blocks[f"block{block}"] = InvertedResidual(channels, width, expansion, first_stride if block == 1 else 1)
            channels = width
        parts[f"stage{stage}"] = nn.Sequential(blocks)
    parts["last"] = _conv_bn(channels, spec.head_channels, act=nn.ReLU6())
    parts["head"] = build_head(spec.head_channels, spec.num_classes)
    return nn.Sequential(parts)


_RELU = nn.ReLU()


def _conv_bn(
    channels: int, width: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: nn.Module | None = _RELU
) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=float_conv(channels, width, kernel, stride, groups), bn=nn.BatchNorm2d(width)
    )
    if act is not None:
        layers["relu"] = act
    return nn.Sequential(layers)
