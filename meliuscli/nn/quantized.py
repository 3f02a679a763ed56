"""Convolution and linear layer of any bits: weights through a quantizer, activations through one or as they come."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from meliuscli.nn.layers import same_border
from meliuscli.nn.quantizers import MagnitudeScaling, SteSign, SymmetricQuantizer


class QuantConv2d(nn.Module):
    """(N, in_channels, H, W) -> (N, out_channels, H', W'), "same" padding unless ``padding`` says otherwise; with ``same`` as
    TensorFlow has it where there is a stride (``same_border``), else alike on both sides.

    ``weight`` holds the latent float weights. A quantizer may make several filters of each, ``weight_bases`` times as
    many, which lie behind each other and are what is stored. ``weight_bits`` and ``activation_bits`` are what counting reads; the
    quantizers must do as they say. Activations arrive quantized, or go through ``activation``."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        stride: int = 1,
        *,
        quantizer: nn.Module | None = None,
        activation: nn.Module | None = None,
        weight_bits: int = 1,
        activation_bits: int = 1,
        weight_bases: int = 1,
        padding: int | None = None,
        pad_value: float = 0.0,
        groups: int = 1,
        bias: bool = False,
        same: bool = False,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        self.same = same
        self.stride, self.dilation, self.groups, self.pad_value = stride, dilation, groups, pad_value
        self.padding = dilation * (kernel // 2) if padding is None else padding
        self.weight_bits, self.activation_bits, self.weight_bases = weight_bits, activation_bits, weight_bases
        self.quantizer = MagnitudeScaling() if quantizer is None else quantizer
        self.activation = nn.Identity() if activation is None else activation
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, kernel, kernel))
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        x, padding = self.bordered(self.activation(x))
        weight = self.quantizer(self.weight)
        return F.conv2d(x, weight, self.bias, self.stride, padding, self.dilation, self.groups)

    def bordered(self, x: Tensor) -> tuple[Tensor, int]:
        """The map with what border torch's convolution cannot make, and the padding that is left to that."""
        if self.padding and self.same:
            reach = self.dilation * (self.weight.shape[-1] - 1) + 1
            border = same_border(int(x.shape[-1]), reach, self.stride)
            return F.pad(x, border, value=self.pad_value), 0
        if self.padding and self.pad_value:
            return F.pad(x, (self.padding,) * 4, value=self.pad_value), 0
        return x, self.padding

    def extra_repr(self) -> str:
        out_channels, in_channels, kernel, _ = self.weight.shape
        return (
            f"{in_channels * self.groups}, {out_channels}, kernel_size={kernel}, stride={self.stride}, "
            f"bits={self.weight_bits}x{self.activation_bits}"
            f"{f', weight_bases={self.weight_bases}' if self.weight_bases > 1 else ''}"
            f"{f', dilation={self.dilation}' if self.dilation > 1 else ''}"
            f"{f', pad_value={self.pad_value:g}' if self.pad_value else ''}{', same' if self.same else ''}"
        )


class QuantLinear(nn.Module):
    """(N, in_features) -> (N, out_features), without bias unless asked for."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        quantizer: nn.Module,
        activation: nn.Module,
        weight_bits: int,
        activation_bits: int,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.weight_bits, self.activation_bits = weight_bits, activation_bits
        self.quantizer, self.activation = quantizer, activation
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.activation(x), self.quantizer(self.weight), self.bias)

    def extra_repr(self) -> str:
        out_features, in_features = self.weight.shape
        return f"{in_features}, {out_features}, bits={self.weight_bits}x{self.activation_bits}"


def integer_conv(
    in_channels: int,
    out_channels: int,
    kernel: int,
    num_bits: int,
    stride: int = 1,
    padding: int | None = None,
    groups: int = 1,
    bias: bool = False,
) -> QuantConv2d:
    """A convolution of signed integers of ``num_bits``, weights and activations."""
    return QuantConv2d(
        in_channels,
        out_channels,
        kernel,
        stride,
        quantizer=SymmetricQuantizer(num_bits),
        activation=SymmetricQuantizer(num_bits, per_image=True),
        weight_bits=num_bits,
        activation_bits=num_bits,
        padding=padding,
        groups=groups,
        bias=bias,
    )


def sign_conv(
    in_channels: int,
    out_channels: int,
    kernel: int = 3,
    stride: int = 1,
    clip: float = 1.0,
    pad_value: float = 0.0,
    activation: nn.Module | None = None,
    same: bool = False,
    dilation: int = 1,
) -> QuantConv2d:
    """A binary convolution without scales: signs of weights, gradient where |weight| <= ``clip``."""
    return QuantConv2d(
        in_channels,
        out_channels,
        kernel,
        stride,
        quantizer=SteSign(clip),
        pad_value=pad_value,
        activation=activation,
        same=same,
        dilation=dilation,
    )
