"""Small binary networks as modules (sources: ``meliuscli.arch.families.small``)."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from meliuscli.arch.families.small import (
    CNV_POOLED,
    INPUT_BITS,
    VGG_POOLED,
    FinnConvSpec,
    FinnDenseSpec,
    VGGSmallSpec,
)
from meliuscli.arch.plan import HEAD, STEM
from meliuscli.nn.layers import float_conv, linear
from meliuscli.nn.quantized import QuantConv2d, sign_conv
from meliuscli.nn.quantizers import SteSign, straight_through

Parts = OrderedDict[str, nn.Module]


class FixedPoint(nn.Module):
    """Values in [-1, 1) to whole multiples of 2^(1 - bits); the gradient passes inside."""

    def __init__(self, num_bits: int) -> None:
        super().__init__()
        self.steps = 2 ** (num_bits - 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x.clamp(-1, 1 - 1 / self.steps)
        return straight_through(x, torch.round(x * self.steps) / self.steps)


def build(spec: FinnDenseSpec | FinnConvSpec | VGGSmallSpec, _clip: float) -> nn.Sequential:
    """Module names are those of ``spec.layers()``."""
    if isinstance(spec, FinnDenseSpec):
        return nn.Sequential(_finn_dense(spec))
    return nn.Sequential(_finn_conv(spec) if isinstance(spec, FinnConvSpec) else _vgg(spec))


def _finn_dense(spec: FinnDenseSpec) -> Parts:
    return _dense(spec.input_channels * spec.input_size**2, (*spec.hidden, spec.num_classes), STEM)


def _dense(channels: int, widths: tuple[int, ...], first: str = "") -> Parts:
    """Binary dense layers as 1x1 convolutions of one pixel, which packed kernels run."""
    parts: Parts = OrderedDict(flatten=nn.Flatten(), unflatten=nn.Unflatten(1, (-1, 1, 1)))
    for index, width in enumerate(widths, start=1):
        stage = HEAD if index == len(widths) else first if first and index == 1 else f"fc{index}"
        conv = sign_conv(channels, width, 1, activation=SteSign())
        parts[stage] = nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(width)))
        channels = width
    parts["logits"] = nn.Flatten()
    return parts


def _finn_conv(spec: FinnConvSpec) -> Parts:
    parts: Parts = OrderedDict()
    channels = spec.input_channels
    for index, width in enumerate(spec.channels, start=1):
        is_first = index == 1
        conv = QuantConv2d(
            channels,
            width,
            3,
            quantizer=SteSign(),
            activation=FixedPoint(INPUT_BITS) if is_first else SteSign(),
            activation_bits=INPUT_BITS if is_first else 1,
            padding=0,
        )
        layers: Parts = OrderedDict(conv=conv, bn=nn.BatchNorm2d(width))
        if index in CNV_POOLED:  # in front of the sign or behind it: the largest sign is the sign of the largest
            layers["pool"] = nn.MaxPool2d(2)
        parts[STEM if is_first else f"conv{index}"] = nn.Sequential(layers)
        channels = width
    last = next(layer for layer in spec.layers() if layer.kernel == 1 and layer.kind == "conv")
    return OrderedDict(**parts, **_dense(last.in_channels, (*spec.hidden, spec.num_classes)))


def _vgg(spec: VGGSmallSpec) -> Parts:
    parts: Parts = OrderedDict()
    channels = spec.input_channels
    for index, width in enumerate(spec.channels, start=1):
        layers: Parts = OrderedDict()
        if index == 1:
            layers["conv"] = float_conv(channels, width, 3)
        else:
            layers["conv"] = sign_conv(channels, width, 3, pad_value=spec.pad_value, activation=SteSign())
        if index in VGG_POOLED:
            layers["pool"] = nn.MaxPool2d(2)
        layers["bn"] = nn.BatchNorm2d(width)
        parts[STEM if index == 1 else f"conv{index}"] = nn.Sequential(layers)
        channels = width
    features = next(layer.in_channels for layer in spec.layers() if layer.kind == "linear")
    head: Parts = OrderedDict(relu=nn.ReLU(), flatten=nn.Flatten(), fc=linear(features, spec.num_classes))
    parts[HEAD] = nn.Sequential(head)
    return parts
