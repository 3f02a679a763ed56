"""QuickNet as modules (arXiv 2011.09398, section 4; larq-zoo v1)."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from meliuscli.arch.families.quicknet import QuickNetSpec
from meliuscli.nn.families.parts import batch_norm, build_head
from meliuscli.nn.layers import SameConv2d, float_conv
from meliuscli.nn.quantized import sign_conv
from meliuscli.nn.quantizers import SteSign

CLIP = 1.25


class QuickBlock(nn.Module):
    """Sign, binary 3x3 convolution padded with +1, ReLU, BN, shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.sign = SteSign(CLIP)
        self.conv = sign_conv(channels, channels, clip=CLIP, pad_value=1.0)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bn(F.relu(self.conv(self.sign(x))))  # type: ignore[no-any-return]


def blur(channels: int, same: bool = False) -> nn.Conv2d:
    """A fixed binomial 3x3 filter a channel, stride 2 (arXiv 1904.11486)."""
    conv = (SameConv2d if same else nn.Conv2d)(channels, channels, 3, 2, 1, groups=channels, bias=False)
    taps = torch.tensor([1.0, 2.0, 1.0])
    conv.weight.data.copy_((taps[:, None] * taps / 16).expand_as(conv.weight))
    conv.weight.requires_grad_(False)
    return conv


def build(spec: QuickNetSpec, _clip: float) -> nn.Sequential:
    """Module names are those of ``spec.layers()``."""
    width = spec.channels[0]
    narrow, same = width // 4, spec.padding == "same"
    stem: OrderedDict[str, nn.Module] = OrderedDict()
    stem["conv1"], stem["bn1"] = float_conv(spec.input_channels, narrow, 3, 2, same=same), nn.BatchNorm2d(narrow)
    stem["relu"] = nn.ReLU()
    stem["depthwise"] = float_conv(narrow, narrow, 3, 2, groups=narrow, same=same)
    stem["bn2"] = batch_norm(narrow, scale=False, shift=False)
    stem["conv2"], stem["bn3"] = float_conv(narrow, width, 1), nn.BatchNorm2d(width)
    parts: OrderedDict[str, nn.Module] = OrderedDict(stem=nn.Sequential(stem))
    for stage, (num, channels) in enumerate(zip(spec.num_blocks, spec.channels, strict=True), start=1):
        if channels != width:
            parts[f"transition{stage - 1}"] = _transition(width, channels, same)
            width = channels
        blocks: OrderedDict[str, nn.Module] = OrderedDict()
        for block in range(1, num + 1):
            blocks[f"block{block}"] = QuickBlock(width)
        parts[f"stage{stage}"] = nn.Sequential(blocks)
    parts["head"] = build_head(width, spec.num_classes, relu=True)
    return nn.Sequential(parts)


def _transition(channels: int, width: int, same: bool) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict(relu=nn.ReLU(), pool=nn.MaxPool2d(2, stride=1))
    layers["blur"] = blur(channels, same)
    layers["conv"], layers["bn"] = float_conv(channels, width, 1), nn.BatchNorm2d(width)
    return nn.Sequential(layers)
