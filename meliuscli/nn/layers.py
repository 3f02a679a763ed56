"""Layers that torch does not have: the binary convolution and the channel shuffle."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from meliuscli.nn.quantizers import CLIP_THRESHOLD, sign_activations, sign_weights


class BinaryConv2d(nn.Module):
    """Binary 3x3 convolution, stride 1, as in BMXNet: signs of inputs and weights, padding with -1, and the result
    (y + K) / 2 with K = in_channels * 9, the range [0, K] of xnor and popcount.

    Input (N, in_channels, H, W), output (N, out_channels, H, W). ``weight`` holds the latent float weights."""

    def __init__(self, in_channels: int, out_channels: int, dilation: int = 1, clip: float = CLIP_THRESHOLD) -> None:
        super().__init__()
        self.dilation, self.clip = dilation, clip
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 3, 3))
        # (y + K) / 2 costs nothing as weights of +-1/2 and a constant bias; exact in float32.
        self.register_buffer("offset", torch.full((out_channels,), in_channels * 9 / 2), persistent=False)
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")

    offset: Tensor

    def forward(self, x: Tensor) -> Tensor:
        signs = sign_activations(x, self.clip, padding=self.dilation)
        return F.conv2d(signs, sign_weights(self.weight, 0.5), self.offset, dilation=self.dilation)

    def extra_repr(self) -> str:
        out_channels, in_channels = self.weight.shape[:2]
        return f"{in_channels}, {out_channels}, kernel_size=3, dilation={self.dilation}, clip={self.clip}"


class ChannelShuffle(nn.Module):
    """Interleave ``groups`` groups of channels, so that a grouped convolution sees all of them."""

    def __init__(self, groups: int, channels: int) -> None:
        super().__init__()
        self.groups = math.gcd(groups, channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.channel_shuffle(x, self.groups)


def float_conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A float convolution without bias, "same" padding before the stride, He-normal weights."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return conv


def linear(in_features: int, out_features: int) -> nn.Linear:
    """A float linear layer, He-normal weights and zero bias."""
    layer = nn.Linear(in_features, out_features)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)
    return layer
