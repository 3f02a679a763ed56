"""Residual networks as modules: float ResNet and its binary kin (sources: ``meliuscli.arch.families.resnet``)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from meliuscli.arch.families.resnet import (
    EXPANSION,
    SCALING_REDUCTION,
    BiRealNetSpec,
    BorderedSpec,
    RealToBinarySpec,
    ResidualSpec,
    ResNetESpec,
    ResNetSpec,
    XnorResNetSpec,
)
from meliuscli.nn.families.parts import batch_norm, build_head, build_stem, half_pool, pooled_shortcut, recipe_conv
from meliuscli.nn.layers import float_conv
from meliuscli.nn.quantized import QuantConv2d, sign_conv
from meliuscli.nn.quantizers import ApproxSign, ChannelScaling, LeakyClip, RPReLU, RSign, SteSign, input_scale


class BasicBlock(nn.Module):
    """Float: conv, BN, ReLU, conv, BN, shortcut, ReLU."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = float_conv(channels, width, 3, stride), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = float_conv(width, width, 3), nn.BatchNorm2d(width)
        self.shortcut = strided_shortcut(channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + self.shortcut(x))


class Bottleneck(nn.Module):
    """Float: 1x1, 3x3 with the stride, 1x1, shortcut."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        inner = width // EXPANSION
        self.conv1, self.bn1 = float_conv(channels, inner, 1), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = float_conv(inner, inner, 3, stride), nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = float_conv(inner, width, 1), nn.BatchNorm2d(width)
        self.shortcut = strided_shortcut(channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        return F.relu(self.bn3(self.conv3(out)) + self.shortcut(x))


def strided_shortcut(channels: int, width: int, stride: int) -> nn.Module:
    """A float 1x1 convolution with the stride, and BN; the identity where the shape stays."""
    if stride == 1 and channels == width:
        return nn.Identity()
    return nn.Sequential(
        OrderedDict(conv=float_conv(channels, width, 1, stride), bn=nn.BatchNorm2d(width)),
    )


class XnorUnit(nn.Module):
    """BN, sign, binary convolution, and XNOR-Net's two scales where ``scaling``: alpha in the weights' quantizer, K as a
    map."""

    def __init__(self, channels: int, width: int, kernel: int, stride: int, scaling: bool) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.sign = SteSign()
        self.conv = (
            QuantConv2d(channels, width, kernel, stride) if scaling else sign_conv(channels, width, kernel, stride)
        )
        self.scaling = scaling

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(x)
        out: Tensor = self.conv(self.sign(x))
        if self.scaling:
            kernel = self.conv.weight.shape[-1]
            out = out * input_scale(x, kernel, self.conv.stride, kernel // 2)
        return out


class XnorBlock(nn.Module):
    """Two binary units with a shortcut around both."""

    def __init__(self, channels: int, width: int, stride: int, spec: XnorResNetSpec) -> None:
        super().__init__()
        self.unit1 = XnorUnit(channels, width, 3, stride, spec.scaling)
        self.unit2 = XnorUnit(width, width, 3, 1, spec.scaling)
        if spec.shortcut == "binary" and (stride > 1 or channels != width):
            self.shortcut: nn.Module = XnorUnit(channels, width, 1, stride, spec.scaling)
        else:
            self.shortcut = strided_shortcut(channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.unit2(self.unit1(x)) + self.shortcut(x)  # type: ignore[no-any-return]


class ResNetEBlock(nn.Module):
    """Sign, binary convolution, BN, shortcut."""

    def __init__(self, channels: int, width: int, stride: int, clip: float, spec: ResNetESpec) -> None:
        super().__init__()
        same = spec.padding == "same"
        self.conv = recipe_conv(channels, width, clip, stride=stride, pad_value=spec.pad_value, same=same)
        self.bn = nn.BatchNorm2d(width)
        self.shortcut = pooled_shortcut(channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)) + self.shortcut(x)  # type: ignore[no-any-return]


class BiRealBlock(nn.Module):
    """Sign, binary convolution, BN, shortcut; with ``reactivation`` a shift before the sign and RPReLU at the end."""

    def __init__(self, channels: int, width: int, stride: int, reactivation: bool, same: bool) -> None:
        super().__init__()
        self.sign = RSign(channels, ApproxSign()) if reactivation else ApproxSign()
        self.conv = QuantConv2d(channels, width, 3, stride, same=same and stride > 1)
        self.bn = nn.BatchNorm2d(width)
        self.shortcut = pooled_shortcut(channels, width, stride)
        self.act = RPReLU(width) if reactivation else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(self.sign(x))) + self.shortcut(x))  # type: ignore[no-any-return]


class BiRealBottleneck(nn.Module):
    """Two streams, (narrow, wide) -> (narrow, wide): the narrow one joins the inner convolutions of the blocks. The
    very first convolution of a network is float and has no narrow shortcut."""

    def __init__(self, channels: int, width: int, stride: int, is_first: bool) -> None:
        super().__init__()
        inner = width // EXPANSION
        self.sign = ApproxSign()
        self.is_first, self.stride = is_first, stride
        self.enter = LeakyClip() if is_first else self.sign
        self.conv1 = float_conv(channels, inner, 1) if is_first else QuantConv2d(channels, inner, 1)
        self.bn1 = nn.BatchNorm2d(inner)
        widens = channels != width and not is_first
        self.narrow = float_conv(channels // EXPANSION, inner, 1) if widens else nn.Identity()
        self.conv2, self.bn2 = QuantConv2d(inner, inner, 3, stride), nn.BatchNorm2d(inner)
        self.pool = half_pool() if stride > 1 else nn.Identity()
        self.conv3, self.bn3 = QuantConv2d(inner, width, 1), nn.BatchNorm2d(width)
        self.shortcut = pooled_shortcut(channels, width, stride)

    def forward(self, streams: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        narrow, wide = streams
        first = self.bn1(self.conv1(self.enter(wide)))
        if not self.is_first:
            first = first + self.narrow(narrow)
        second = self.bn2(self.conv2(self.sign(first))) + self.pool(first)
        third = self.bn3(self.conv3(self.sign(second)))
        return second, third + self.shortcut(wide)


class BothStreams(nn.Module):
    """One map to both streams."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


class Wide(nn.Module):
    """The wide stream alone."""

    def forward(self, streams: tuple[Tensor, Tensor]) -> Tensor:
        return streams[1]


class RealToBinaryBlock(nn.Module):
    """BN, sign, binary convolution, computed scales, PReLU, shortcut."""

    def __init__(self, channels: int, width: int, stride: int, same: bool) -> None:
        super().__init__()
        self.bn, self.sign = nn.BatchNorm2d(channels), SteSign()
        self.conv = sign_conv(channels, width, 3, stride, same=same and stride > 1)
        self.scaling = ChannelScaling(channels, width, SCALING_REDUCTION)
        self.prelu = nn.PReLU(width)
        self.shortcut = pooled_shortcut(channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.bn(x)
        out = self.prelu(self.scaling(self.conv(self.sign(normed)), normed))
        return out + self.shortcut(x)  # type: ignore[no-any-return]


def build(spec: ResidualSpec, clip: float) -> nn.Sequential:
    """Module names are those of ``spec.layers()``."""
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    same = isinstance(spec, BorderedSpec) and spec.padding == "same"
    stem = build_stem(spec.stem, spec.input_channels, spec.stem_channels, spec.stem_activation, same)
    if isinstance(spec, ResNetESpec):
        if spec.input_norm:
            parts["input_norm"] = batch_norm(spec.input_channels, scale=False)
        stem["norm"] = nn.BatchNorm2d(spec.stem_channels)
    parts["stem"] = nn.Sequential(stem)
    two_streams = isinstance(spec, BiRealNetSpec) and spec.block == "bottleneck"
    if two_streams:
        parts["split"] = BothStreams()
    parts |= residual_stages(spec, _block_maker(spec, clip, same))
    if two_streams:
        parts["wide"] = Wide()
    norm, relu = isinstance(spec, XnorResNetSpec), isinstance(spec, XnorResNetSpec | ResNetESpec)
    parts["head"] = build_head(spec.channels[-1], spec.num_classes, norm=norm, relu=relu)
    return nn.Sequential(parts)


BlockMaker = Callable[[int, int, int, bool], nn.Module]
"""(channels, width, stride, is the network's first) -> block."""


def residual_stages(spec: ResidualSpec, make: BlockMaker) -> OrderedDict[str, nn.Module]:
    """The stages by name; all but the first halve the map in their first block."""
    stages: OrderedDict[str, nn.Module] = OrderedDict()
    channels = spec.stem_channels
    for stage, (num, width) in enumerate(zip(spec.num_blocks, spec.channels, strict=True), start=1):
        blocks: OrderedDict[str, nn.Module] = OrderedDict()
        for block in range(1, num + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            blocks[f"block{block}"] = make(channels, width, stride, stage == block == 1)
            channels = width
        stages[f"stage{stage}"] = nn.Sequential(blocks)
    return stages


def _block_maker(spec: ResidualSpec, clip: float, same: bool) -> BlockMaker:
    if isinstance(spec, ResNetSpec):
        block = BasicBlock if spec.block == "basic" else Bottleneck
        return lambda channels, width, stride, _: block(channels, width, stride)
    if isinstance(spec, XnorResNetSpec):
        return lambda channels, width, stride, _: XnorBlock(channels, width, stride, spec)
    if isinstance(spec, ResNetESpec):
        return lambda channels, width, stride, _: ResNetEBlock(channels, width, stride, clip, spec)
    if isinstance(spec, RealToBinarySpec):
        return lambda channels, width, stride, _: RealToBinaryBlock(channels, width, stride, same)
    if isinstance(spec, BiRealNetSpec) and spec.block == "bottleneck":
        return BiRealBottleneck
    if isinstance(spec, BiRealNetSpec):
        return lambda channels, width, stride, _: BiRealBlock(channels, width, stride, spec.reactivation, same)
    raise TypeError(f"no block for {type(spec).__name__}")
