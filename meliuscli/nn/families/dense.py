"""MeliusNet and BinaryDenseNet as modules (arXiv 2001.05936, section 3; arXiv 1906.08637, section 3)."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from meliuscli.arch.families.dense import GROUPED_STEM_GROUPS, DenseFamilySpec
from meliuscli.nn.binary_conv import BinaryConv2d
from meliuscli.nn.layers import ChannelShuffle, float_conv, linear

SHUFFLE_GROUPS = 16
"""Groups of the channel shuffle in front of a grouped transition (BMXNet); a divisor of it where 16 does not divide."""


class DenseBlock(nn.Module):
    """(N, C, H, W) -> (N, C + growth_rate, H, W): new features, behind the ones that came in."""

    def __init__(self, channels: int, growth_rate: int, dilation: int, clip: float) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.conv = BinaryConv2d(channels, growth_rate, dilation, clip)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(self.bn(x))], dim=1)


class ImprovementBlock(nn.Module):
    """(N, C, H, W) -> the same shape: adds to the last ``growth_rate`` channels, passes the others on."""

    def __init__(self, channels: int, growth_rate: int, dilation: int, clip: float) -> None:
        super().__init__()
        self.growth_rate = growth_rate
        self.bn = nn.BatchNorm2d(channels)
        self.conv = BinaryConv2d(channels, growth_rate, dilation, clip)

    def forward(self, x: Tensor) -> Tensor:
        kept, newest = x[:, : -self.growth_rate], x[:, -self.growth_rate :]
        return torch.cat([kept, newest + self.conv(self.bn(x))], dim=1)


def build_dense_family(spec: DenseFamilySpec, clip: float) -> nn.Sequential:
    """Stem, stages, transitions, head; module names are those of ``spec.layers()``."""
    parts: OrderedDict[str, nn.Module] = OrderedDict(stem=_stem(spec))
    channels = spec.stem_channels
    for index, num_blocks in enumerate(spec.num_blocks):
        growth, dilation = spec.growth_rate[index], spec.dilation[index]
        blocks: OrderedDict[str, nn.Module] = OrderedDict()
        for block in range(num_blocks):
            members: OrderedDict[str, nn.Module] = OrderedDict(dense=DenseBlock(channels, growth, dilation, clip))
            channels += growth
            if spec.improvement:
                members["improvement"] = ImprovementBlock(channels, growth, dilation, clip)
            blocks[f"block{block + 1}"] = nn.Sequential(members)
        parts[f"stage{index + 1}"] = nn.Sequential(blocks)
        if index < len(spec.transition_channels):
            target = spec.transition_channels[index]
            parts[f"transition{index + 1}"] = _transition(channels, target, spec.groups, spec.pools[index])
            channels = target
    parts["head"] = _head(channels, spec.num_classes)
    return nn.Sequential(parts)


def _stem(spec: DenseFamilySpec) -> nn.Module:
    width = spec.stem_channels
    if spec.stem == "thumbnail":
        return nn.Sequential(OrderedDict(conv=float_conv(spec.input_channels, width, 3)))
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if spec.stem == "imagenet":
        layers["conv"] = float_conv(spec.input_channels, width, 7, stride=2)
        layers["bn"], layers["relu"] = nn.BatchNorm2d(width), nn.ReLU()
    else:
        first, second, third = GROUPED_STEM_GROUPS
        half = width // 2
        for index, (before, after, stride, groups) in enumerate(
            [(spec.input_channels, half, 2, first), (half, half, 1, second), (half, width, 1, third)], start=1
        ):
            layers[f"conv{index}"] = float_conv(before, after, 3, stride, groups)
            layers[f"bn{index}"], layers[f"relu{index}"] = nn.BatchNorm2d(after), nn.ReLU()
    layers["pool"] = nn.MaxPool2d(3, stride=2, padding=1)
    return nn.Sequential(layers)


def _transition(channels: int, target: int, groups: int, pool: bool) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict(bn=nn.BatchNorm2d(channels))
    if pool:
        layers["pool"] = nn.MaxPool2d(2)
    layers["relu"] = nn.ReLU()
    if groups > 1:
        layers["shuffle"] = ChannelShuffle(SHUFFLE_GROUPS, channels)
    layers["conv"] = float_conv(channels, target, 1, groups=groups)
    return nn.Sequential(layers)


def _head(channels: int, num_classes: int) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        bn=nn.BatchNorm2d(channels),
        relu=nn.ReLU(),
        pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        fc=linear(channels, num_classes),
    )
    return nn.Sequential(layers)
