"""PokeBNN as modules (arXiv 2112.00133, section 4; its code in google/aqt)."""

from __future__ import annotations

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

from meliuscli.arch.families.pokebnn import END_BITS, EXCITE_BITS, EXPANSION, REDUCTION, PokeBNNSpec
from meliuscli.nn.families.parts import build_head
from meliuscli.nn.quantized import QuantLinear, integer_conv, sign_conv
from meliuscli.nn.quantizers import DPReLU, SqueezeExcite, SteSign, SymmetricQuantizer

BOUND = 3.0
"""Activations are binarized between -3 and 3: the gradient passes there."""


def reshape_add(out: Tensor, shortcut: Tensor, tile: bool) -> Tensor:
    """``out`` plus ``shortcut`` brought to its shape (section 4.1): groups of channels averaged where there are too
    many, tiled or padded with zeros where there are too few, 3x3 average pooling where the map halves."""
    width, channels = out.shape[1], shortcut.shape[1]
    if channels > width:
        group = channels // width
        batch, _, height, across = shortcut.shape
        shortcut = shortcut[:, : width * group].reshape(batch, width, group, height, across).mean(2)
    elif channels < width:
        if tile:
            shortcut = shortcut.repeat(1, width // channels, 1, 1)
        shortcut = F.pad(shortcut, (0, 0, 0, 0, 0, width - shortcut.shape[1]))
    if shortcut.shape[2] != out.shape[2]:
        shortcut = F.avg_pool2d(shortcut, 3, 2, 1, count_include_pad=False)
    return out + shortcut


class PokeConv(nn.Module):
    """Sign, binary convolution, BN, reshaped shortcuts, DPReLU, squeeze-and-excite of the input, BN."""

    def __init__(self, channels: int, width: int, kernel: int, stride: int, last: bool = False) -> None:
        super().__init__()
        self.sign = SteSign(BOUND)
        self.conv, self.bn1 = sign_conv(channels, width, kernel, stride), nn.BatchNorm2d(width)
        if last:
            nn.init.zeros_(self.bn1.weight)
        self.act = DPReLU(width)
        narrow = max(channels // REDUCTION, 1)
        self.excite = SqueezeExcite(
            integer_conv(channels, narrow, 1, EXCITE_BITS, bias=True),
            integer_conv(narrow, width, 1, EXCITE_BITS, bias=True),
            nn.Hardsigmoid(),
        )
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor, block_input: Tensor | None = None) -> Tensor:
        out = reshape_add(self.bn1(self.conv(self.sign(x))), x, tile=False)
        if block_input is not None:
            out = reshape_add(out, block_input, tile=True)
        return self.bn2(self.excite(self.act(out), x))  # type: ignore[no-any-return]


class PokeBottleneck(nn.Module):
    """1x1, 3x3 with the stride, 1x1 with the block's shortcut."""

    def __init__(self, channels: int, inner: int, stride: int) -> None:
        super().__init__()
        self.unit1 = PokeConv(channels, inner, 1, 1)
        self.unit2 = PokeConv(inner, inner, 3, stride)
        self.unit3 = PokeConv(inner, EXPANSION * inner, 1, 1, last=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.unit3(self.unit2(self.unit1(x)), x)  # type: ignore[no-any-return]


def build(spec: PokeBNNSpec, _clip: float) -> nn.Sequential:
    """Module names are those of ``spec.layers()``."""
    groups, width = spec.stem_groups, spec.stem_channels
    stem: OrderedDict[str, nn.Module] = OrderedDict()
    stem["conv1"] = integer_conv(spec.input_channels, groups, 4, END_BITS, stride=4, padding=0)
    stem["bn1"], stem["act1"] = nn.BatchNorm2d(groups), DPReLU(groups)
    stem["conv2"] = integer_conv(groups, width, 3, END_BITS, groups=groups)
    stem["bn2"], stem["act2"] = nn.BatchNorm2d(width), DPReLU(width)
    parts: OrderedDict[str, nn.Module] = OrderedDict(stem=nn.Sequential(stem))
    for stage, (num, inner) in enumerate(zip(spec.num_blocks, spec.channels, strict=True), start=1):
        blocks: OrderedDict[str, nn.Module] = OrderedDict()
        for block in range(1, num + 1):
            blocks[f"block{block}"] = PokeBottleneck(width, inner, 2 if stage > 1 and block == 1 else 1)
            width = EXPANSION * inner
        parts[f"stage{stage}"] = nn.Sequential(blocks)
    fc = QuantLinear(
        width,
        spec.num_classes,
        quantizer=SymmetricQuantizer(END_BITS),
        activation=SymmetricQuantizer(END_BITS, per_image=True),
        weight_bits=END_BITS,
        activation_bits=END_BITS,
        bias=True,
    )
    parts["head"] = build_head(width, spec.num_classes, fc=fc)
    return nn.Sequential(parts)
