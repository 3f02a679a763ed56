"""Float layers as MeliusNet uses them: channel shuffle, and convolutions and linear layers initialised He-normal."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn


class ChannelShuffle(nn.Module):
    """Interleave ``groups`` groups of channels, so that a grouped convolution sees all of them."""

    def __init__(self, groups: int, channels: int) -> None:
        super().__init__()
        self.groups = math.gcd(groups, channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.channel_shuffle(x, self.groups)


class PointwiseConv2d(nn.Conv2d):
    """A strided 1x1 convolution, as one without stride on the pixels that it sees: the same values.

    The gradient of torch's own (2.13, CPU) writes out of bounds where the weights lie channels last and there are fewer
    than eight input channels."""

    def forward(self, x: Tensor) -> Tensor:
        down, across = self.stride
        return F.conv2d(x[:, :, ::down, ::across], self.weight, self.bias, groups=self.groups)


def same_border(size: int, kernel: int, stride: int) -> tuple[int, int, int, int]:
    """The border of TensorFlow's "same" (before, after, before, after): an output of ceil(size / stride), and one pixel more
    behind than in front where they are odd."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    before, after = total // 2, total - total // 2
    return before, after, before, after


class SameConv2d(nn.Conv2d):
    """A float convolution with the border of ``same_border``, of zeros."""

    def forward(self, x: Tensor) -> Tensor:
        border = same_border(int(x.shape[-1]), self.kernel_size[0], self.stride[0])
        return F.conv2d(F.pad(x, border), self.weight, self.bias, self.stride, groups=self.groups)


class SamePad(nn.Module):
    """Zeros around the map so that a convolution or pooling gives ceil(size / stride), one more behind than in front
    where they are odd (TensorFlow's "same")."""

    value = 0.0

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, same_border(int(x.shape[-1]), self.kernel, self.stride), value=self.value)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel}, stride={self.stride}"


class SameMaxPool2d(SamePad):
    """Max pooling with the border of ``same_border``, which is never the largest."""

    value = float("-inf")

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(super().forward(x), self.kernel, self.stride)


def float_conv(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1, same: bool = False
) -> nn.Conv2d:
    """A float convolution without bias, "same" padding before the stride (TensorFlow's where ``same``), He-normal weights."""
    kind = SameConv2d if same else PointwiseConv2d if kernel == 1 and stride > 1 else nn.Conv2d
    conv = kind(in_channels, out_channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return conv


def linear(in_features: int, out_features: int) -> nn.Linear:
    """A float linear layer, He-normal weights and zero bias."""
    layer = nn.Linear(in_features, out_features)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)
    return layer
