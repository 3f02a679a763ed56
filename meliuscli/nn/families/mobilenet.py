"""MobileNet-v1 as modules (arXiv 1704.04861, table 1)."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from meliuscli.arch.families.mobilenet import MobileNetV1Spec
from meliuscli.nn.layers import float_conv, linear


def build_mobilenet_v1(spec: MobileNetV1Spec) -> nn.Sequential:
    """Module names are those of ``spec.layers()``."""
    channels = spec.stem_channels
    parts: OrderedDict[str, nn.Module] = OrderedDict(stem=_conv_bn_relu(spec.input_channels, channels, 3, 2, 1))
    for block, (width, stride) in enumerate(zip(spec.channels, spec.strides, strict=True), start=1):
        pair: OrderedDict[str, nn.Module] = OrderedDict(
            depthwise=_conv_bn_relu(channels, channels, 3, stride, groups=channels),
            pointwise=_conv_bn_relu(channels, width, 1, 1, groups=1),
        )
        parts[f"block{block}"] = nn.Sequential(pair)
        channels = width
    head: OrderedDict[str, nn.Module] = OrderedDict(
        pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=linear(channels, spec.num_classes)
    )
    parts["head"] = nn.Sequential(head)
    return nn.Sequential(parts)


def _conv_bn_relu(channels: int, width: int, kernel: int, stride: int, groups: int) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=float_conv(channels, width, kernel, stride, groups), bn=nn.BatchNorm2d(width), relu=nn.ReLU()
    )
    return nn.Sequential(layers)
