"""MeliusNet and BinaryDenseNet as modules (arXiv 2001.05936, section 3; arXiv 1906.08637, section 3)."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from meliuscli.arch.families.dense import DenseFamilySpec, Transition
from meliuscli.nn.binary_conv import BinaryConv2d
from meliuscli.nn.dense_stage import Unit, can_fuse, run_stage
from meliuscli.nn.families.parts import build_head, build_stem, recipe_conv
from meliuscli.nn.layers import ChannelShuffle, float_conv

SHUFFLE_GROUPS = 16
"""Groups of the channel shuffle in front of a grouped transition (BMXNet); a divisor of it where 16 does not divide."""


class DenseBlock(nn.Module):
    """(N, C, H, W) -> (N, C + growth_rate, H, W): new features, behind the ones that came in."""

    def __init__(self, channels: int, growth_rate: int, dilation: int, clip: float, pad_value: int = -1) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.conv = recipe_conv(channels, growth_rate, clip, dilation=dilation, pad_value=pad_value)

    @property
    def unit(self) -> Unit | None:
        """For ``run_stage``, which knows BMXNet's borders."""
        return Unit(self.bn, self.conv, adds=False) if isinstance(self.conv, BinaryConv2d) else None

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(self.bn(x))], dim=1)


class ImprovementBlock(nn.Module):
    """(N, C, H, W) -> the same shape: adds to the last ``growth_rate`` channels, passes the others on."""

    def __init__(self, channels: int, growth_rate: int, dilation: int, clip: float, pad_value: int = -1) -> None:
        super().__init__()
        self.growth_rate = growth_rate
        self.bn = nn.BatchNorm2d(channels)
        self.conv = recipe_conv(channels, growth_rate, clip, dilation=dilation, pad_value=pad_value)

    @property
    def unit(self) -> Unit | None:
        """For ``run_stage``, which knows BMXNet's borders."""
        return Unit(self.bn, self.conv, adds=True) if isinstance(self.conv, BinaryConv2d) else None

    def forward(self, x: Tensor) -> Tensor:
        kept, newest = x[:, : -self.growth_rate], x[:, -self.growth_rate :]
        return torch.cat([kept, newest + self.conv(self.bn(x))], dim=1)


class Stage(nn.Sequential):
    """(N, C, H, W) -> (N, C + growth, H, W): blocks in a row, in training on the CPU as one operation."""

    def forward(self, x: Tensor) -> Tensor:
        members = [member for block in self.children() for member in block.children()]
        units = [unit for member in members if isinstance(unit := getattr(member, "unit", None), Unit)]
        # Another module in place of a block, and hooks on any, must run, not be passed over.
        if len(units) == len(members) and not any(map(_is_hooked, self.modules())) and can_fuse(x, units):
            return run_stage(x, units)
        for block in self:
            x = block(x)
        return x


def _is_hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def build(spec: DenseFamilySpec, clip: float) -> nn.Sequential:
    """Stem, stages, transitions, head; module names are those of ``spec.layers()``."""
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    same, pool = spec.padding == "same", spec.stem_pool
    stem = build_stem(spec.stem, spec.input_channels, spec.stem_channels, same=same, pool=pool)
    parts["stem"] = nn.Sequential(stem)
    for stage in spec.stages():
        blocks: OrderedDict[str, nn.Module] = OrderedDict()
        for unit in stage.units:
            make = ImprovementBlock if unit.adds else DenseBlock
            block = blocks.setdefault(f"block{unit.block}", nn.Sequential())
            block.add_module(unit.kind, make(unit.channels, unit.growth, unit.dilation, clip, spec.pad_value))
        parts[stage.name] = Stage(blocks)
        if stage.transition is not None:
            parts[stage.transition.name] = _transition(stage.transition)
    parts["head"] = build_head(stage.channels, spec.num_classes, norm=True, relu=True)
    return nn.Sequential(parts)


def _transition(transition: Transition) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict(bn=nn.BatchNorm2d(transition.channels))
    if transition.pools:
        layers["pool"] = nn.MaxPool2d(2)
    layers["relu"] = nn.ReLU()
    if transition.groups > 1:
        layers["shuffle"] = ChannelShuffle(SHUFFLE_GROUPS, transition.channels)
    layers["conv"] = float_conv(transition.channels, transition.target, 1, groups=transition.groups)
    return nn.Sequential(layers)
