"""ReActNet-A, -B, -C as modules (arXiv 2003.03488, section 4, figure 5)."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from meliuscli.arch.families.reactnet import ReActNetSpec
from meliuscli.nn.families.parts import build_head, half_pool
from meliuscli.nn.layers import float_conv
from meliuscli.nn.quantized import QuantConv2d
from meliuscli.nn.quantizers import ApproxSign, RPReLU, RSign


class ReActBlock(nn.Module):
    """3x3 with shortcut, then 1x1 with shortcut, or two side by side that see and add the same map."""

    def __init__(self, channels: int, width: int, stride: int, spec: ReActNetSpec) -> None:
        super().__init__()
        self.sign1 = RSign(channels, ApproxSign())
        self.conv1, self.bn1 = QuantConv2d(channels, channels, 3, stride), nn.BatchNorm2d(channels)
        self.pool = half_pool() if stride > 1 else nn.Identity()
        self.act1 = RPReLU(channels)
        self.doubles = width != channels
        is_float = self.doubles and spec.widening == "float"
        self.sign2 = nn.Identity() if is_float else RSign(channels, ApproxSign())

        def pointwise() -> nn.Module:
            if is_float:
                return float_conv(channels, channels, 1, groups=spec.widening_groups)
            return QuantConv2d(channels, channels, 1)

        if self.doubles:
            self.conv2a, self.bn2a = pointwise(), nn.BatchNorm2d(channels)
            self.conv2b, self.bn2b = pointwise(), nn.BatchNorm2d(channels)
        else:
            self.conv2, self.bn2 = pointwise(), nn.BatchNorm2d(channels)
        self.act2 = RPReLU(width)

    def forward(self, x: Tensor) -> Tensor:
        middle = self.act1(self.bn1(self.conv1(self.sign1(x))) + self.pool(x))
        signs = self.sign2(middle)
        if self.doubles:
            halves = [self.bn2a(self.conv2a(signs)) + middle, self.bn2b(self.conv2b(signs)) + middle]
            return self.act2(torch.cat(halves, dim=1))  # type: ignore[no-any-return]
        return self.act2(self.bn2(self.conv2(signs)) + middle)  # type: ignore[no-any-return]


def build(spec: ReActNetSpec, _clip: float) -> nn.Sequential:
    """Module names are those of ``spec.layers()``."""
    channels = spec.stem_channels
    stem = OrderedDict(conv=float_conv(spec.input_channels, channels, 3, 2), bn=nn.BatchNorm2d(channels))
    parts: OrderedDict[str, nn.Module] = OrderedDict(stem=nn.Sequential(stem))
    for block, (width, stride) in enumerate(zip(spec.channels, spec.strides, strict=True), start=1):
        parts[f"block{block}"] = ReActBlock(channels, width, stride, spec)
        channels = width
    parts["head"] = build_head(channels, spec.num_classes)
    return nn.Sequential(parts)
