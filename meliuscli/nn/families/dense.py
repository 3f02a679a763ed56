"""MeliusNet and BinaryDenseNet as modules (arXiv 2001.05936, section 3; arXiv 1906.08637, section 3)."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from meliuscli.arch.families.dense import DenseFamilySpec
from meliuscli.nn.binary_conv import BinaryConv2d
from meliuscli.nn.dense_stage import Unit, can_fuse, run_stage
from meliuscli.nn.families.parts import build_head, build_stem
from meliuscli.nn.layers import ChannelShuffle, float_conv

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


class Stage(nn.Sequential):
    """(N, C, H, W) -> (N, C + growth, H, W): blocks in a row, in training on the CPU as one operation."""

    def forward(self, x: Tensor) -> Tensor:
        units = [
            Unit(member.bn, member.conv, adds=isinstance(member, ImprovementBlock))
            for block in self.children()
            for member in block.children()
            if isinstance(member, DenseBlock | ImprovementBlock)
        ]
        hooked = any(part._forward_hooks or part._forward_pre_hooks for block in self for part in block.modules())
        if not hooked and can_fuse(x, units):
            return run_stage(x, units)
        for block in self:
            x = block(x)
        return x


def build_dense_family(spec: DenseFamilySpec, clip: float) -> nn.Sequential:
    """Stem, stages, transitions, head; module names are those of ``spec.layers()``."""
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    parts["stem"] = nn.Sequential(build_stem(spec.stem, spec.input_channels, spec.stem_channels))
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
        parts[f"stage{index + 1}"] = Stage(blocks)
        if index < len(spec.transition_channels):
            target = spec.transition_channels[index]
            parts[f"transition{index + 1}"] = _transition(channels, target, spec.groups, spec.pools[index])
            channels = target
    parts["head"] = build_head(channels, spec.num_classes, norm=True, relu=True)
    return nn.Sequential(parts)


def _transition(channels: int, target: int, groups: int, pool: bool) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict(bn=nn.BatchNorm2d(channels))
    if pool:
        layers["pool"] = nn.MaxPool2d(2)
    layers["relu"] = nn.ReLU()
    if groups > 1:
        layers["shuffle"] = ChannelShuffle(SHUFFLE_GROUPS, channels)
    layers["conv"] = float_conv(channels, target, 1, groups=groups)
    return nn.Sequential(layers)
