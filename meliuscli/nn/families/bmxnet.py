"""The ResNet of BMXNet's first version as a module (source: ``meliuscli.arch.families.bmxnet``)."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from meliuscli.arch.families.bmxnet import BMXNetResNetSpec
from meliuscli.nn.families.parts import batch_norm, build_head, build_stem
from meliuscli.nn.families.resnet import residual_stages
from meliuscli.nn.quantized import sign_conv
from meliuscli.nn.quantizers import SteSign


class BMXNetBlock(nn.Module):
    """Two units of BN, sign, binary convolution; ``has_shortcut``: a binary 1x1 convolution of the first unit's signs."""

    def __init__(self, channels: int, width: int, stride: int, has_shortcut: bool, pad_value: int) -> None:
        super().__init__()
        self.sign = SteSign()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = sign_conv(channels, width, 3, stride, pad_value=pad_value)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = sign_conv(width, width, 3, pad_value=pad_value)
        self.shortcut = sign_conv(channels, width, 1, stride) if has_shortcut else None

    def forward(self, x: Tensor) -> Tensor:
        signs = self.sign(self.bn1(x))
        out: Tensor = self.conv2(self.sign(self.bn2(self.conv1(signs))))
        # The packed convolutions' results are views that their next call overwrites; a sum is not.
        return out + (x if self.shortcut is None else self.shortcut(signs))


def build(spec: BMXNetResNetSpec, clip: float) -> nn.Sequential:
    """Module names are those of ``spec.layers()``; the input's batch norm has no scale."""
    del clip
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    parts["input_norm"] = batch_norm(spec.input_channels, scale=False)
    parts["stem"] = nn.Sequential(build_stem(spec.stem, spec.input_channels, spec.stem_channels))

    def block(channels: int, width: int, stride: int, is_first: bool) -> BMXNetBlock:
        return BMXNetBlock(channels, width, stride, is_first or stride > 1, spec.pad_value)

    parts |= residual_stages(spec, block)
    parts["head"] = build_head(spec.channels[-1], spec.num_classes, norm=True, relu=True)
    return nn.Sequential(parts)
