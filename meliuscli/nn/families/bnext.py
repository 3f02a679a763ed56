"""BNext as modules (arXiv 2211.12933, section 3)."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from meliuscli.arch.families.bnext import REDUCTION, BNextSpec
from meliuscli.nn.families.parts import build_head, half_pool
from meliuscli.nn.layers import float_conv
from meliuscli.nn.quantized import sign_conv
from meliuscli.nn.quantizers import RSign, SqueezeExcite, SteSign

CLIP = 1.5


class Mix(nn.Module):
    """scale * input + (1 - scale) * output, one learnable scale a channel, kept in [0, 1]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels, 1, 1), 0.5))

    def forward(self, x: Tensor, out: Tensor) -> Tensor:
        scale = self.scale.clamp(0, 1)
        return scale * x + (1 - scale) * out


class BNextUnit(nn.Module):
    """Shift, sign, binary convolution, BN, PReLU, squeeze-and-excite of a mix of input and output, BN, shortcut. An
    attention unit sends its shortcut through PReLU and multiplies by it too."""

    def __init__(self, channels: int, kernel: int, stride: int, attention: bool) -> None:
        super().__init__()
        self.attention = attention
        self.residual = nn.PReLU(channels) if attention else nn.Identity()
        self.pool = half_pool() if stride > 1 else nn.Identity()
        self.sign = RSign(channels, SteSign(CLIP))
        self.conv, self.bn1 = sign_conv(channels, channels, kernel, stride, CLIP), nn.BatchNorm2d(channels)
        self.prelu, self.mix = nn.PReLU(channels), Mix(channels)
        narrow = channels // REDUCTION
        self.excite = SqueezeExcite(nn.Conv2d(channels, narrow, 1), nn.Conv2d(narrow, channels, 1), nn.Sigmoid())
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.pool(self.residual(x))
        out = self.prelu(self.bn1(self.conv(self.sign(x))))
        out = self.excite(out, self.mix(self.pool(x), out))
        if self.attention:
            out = out * residual
        return self.bn2(out) + residual  # type: ignore[no-any-return]


class BNextBlock(nn.Module):
    """A 3x3 unit, then a 1x1 unit, or two side by side where the width doubles."""

    def __init__(self, channels: int, width: int, stride: int, attention: bool) -> None:
        super().__init__()
        self.unit3x3 = BNextUnit(channels, 3, stride, attention)
        self.doubles = width != channels
        if self.doubles:
            self.unit1x1a, self.unit1x1b = BNextUnit(channels, 1, 1, False), BNextUnit(channels, 1, 1, False)
        else:
            self.unit1x1 = BNextUnit(channels, 1, 1, False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.unit3x3(x)
        if self.doubles:
            return torch.cat([self.unit1x1a(x), self.unit1x1b(x)], dim=1)
        return self.unit1x1(x)  # type: ignore[no-any-return]


def build(spec: BNextSpec, _clip: float) -> nn.Sequential:
    """Module names are those of ``spec.layers()``."""
    channels = spec.stem_channels
    stem = OrderedDict(conv=float_conv(spec.input_channels, channels, 3, 2), bn=nn.BatchNorm2d(channels))
    parts: OrderedDict[str, nn.Module] = OrderedDict(stem=nn.Sequential(stem))
    for index, (width, stride) in enumerate(zip(spec.channels, spec.strides, strict=True)):
        parts[f"block{index + 1}"] = BNextBlock(channels, width, stride, attention=index % 2 == 1)
        channels = width
    head = build_head(channels, spec.num_classes)
    parts["head"] = nn.Sequential(OrderedDict(prelu=nn.PReLU(channels), **dict(head.named_children())))
    return nn.Sequential(parts)
