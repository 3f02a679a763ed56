"""ABC-Net as modules (arXiv 1711.11294, sections 3.1 to 3.3)."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from meliuscli.arch.families.abcnet import ABCNetSpec
from meliuscli.nn.families.parts import build_head, build_stem
from meliuscli.nn.families.resnet import residual_stages, strided_shortcut
from meliuscli.nn.quantized import QuantConv2d
from meliuscli.nn.quantizers import SteSign, sign, straight_through

RANK_TOLERANCE = 1e-6
"""Bases whose products are closer to dependent than this share their scale."""


def evenly(num: int) -> list[float]:
    """``num`` numbers from -1 to 1, or 0 alone."""
    return [2 * index / (num - 1) - 1 for index in range(num)] if num > 1 else [0.0]


class WeightBases(nn.Module):
    """Weights (out, in, k, k) to (M * out, in, k, k), base after base: scale_m * sign(w - mean + u_m * deviation) with u_m
    evenly from -1 to 1 and the scales of least squares (section 3.1). The scales are constants to the gradient,
    which passes."""

    def __init__(self, num_bases: int) -> None:
        super().__init__()
        self.shifts = evenly(num_bases)

    def forward(self, weight: Tensor) -> Tensor:
        fixed = weight.detach()
        centred, deviation = fixed - fixed.mean(), fixed.std()
        bases = [sign(centred + shift * deviation) for shift in self.shifts]
        scales = least_squares(bases, fixed).unbind()
        return torch.cat([s * straight_through(weight, base) for s, base in zip(scales, bases, strict=True)])


def least_squares(bases: list[Tensor], target: Tensor) -> Tensor:
    """(M,) scales with which the bases add up to nearly ``target``; of many the smallest."""
    # Elementwise products: they are no MACs of the network, and are not counted as such.
    gram = torch.stack([torch.stack([(one * other).sum() for other in bases]) for one in bases]).double()
    right = torch.stack([(base * target).sum() for base in bases]).double()
    inverse: Tensor = torch.linalg.pinv(gram, rtol=RANK_TOLERANCE, hermitian=True)
    scales: Tensor = (inverse * right).sum(1)
    return scales.to(target.dtype)


class ActivationBases(nn.Module):
    """(B, C, H, W) to (N * B, C, H, W), base after base: +1 where clip(x + shift_n, 0, 1) is at least a half, else -1. The
    gradient passes where x + shift_n lies in [0, 1] (section 3.2). The paper does not say where the shifts begin; here
    the signs turn evenly from -1 to 1."""

    def __init__(self, num_bases: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(0.5 - torch.tensor(evenly(num_bases)))
        self.scale = nn.Parameter(torch.full((num_bases,), 1 / num_bases))
        self.sign = SteSign(clip=0.5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.sign(x + (shift - 0.5)) for shift in self.shift.unbind()])


class MultiBaseConv2d(nn.Module):
    """(B, in_channels, H, W) -> (B, out_channels, H', W'): the scaled sum of all binary convolutions (section 3.2)."""

    def __init__(self, channels: int, width: int, stride: int, spec: ABCNetSpec) -> None:
        super().__init__()
        self.num_weights, self.num_activations = spec.weight_bases, spec.activation_bases
        self.sign = ActivationBases(self.num_activations)
        bases = WeightBases(self.num_weights)
        self.conv = QuantConv2d(channels, width, 3, stride, quantizer=bases, weight_bases=self.num_weights)

    def forward(self, x: Tensor) -> Tensor:
        signs = self.sign(x)
        if self.training:
            return self._in_one(signs)
        products: Tensor = self.conv(signs)
        width = products.shape[1] // self.num_weights
        by_base = products.reshape(self.num_activations, x.shape[0], self.num_weights, width, *products.shape[2:])
        return self._weighted(by_base.sum(2))

    def _in_one(self, signs: Tensor) -> Tensor:
        """The same up to rounding, as one float convolution of both sums, which trains in a fraction of the time."""
        conv = self.conv
        weight: Tensor = conv.quantizer(conv.weight)
        x = self._weighted(signs.reshape(self.num_activations, -1, *signs.shape[1:]))
        return F.conv2d(
            x, weight.reshape(self.num_weights, -1, *weight.shape[1:]).sum(0), None, conv.stride, conv.padding
        )

    def _weighted(self, bases: Tensor) -> Tensor:
        return (self.sign.scale.view(-1, 1, 1, 1, 1) * bases).sum(0)


class ABCBlock(nn.Module):
    """Two convolutions of several bases, BN behind each, and a shortcut around both."""

    def __init__(self, channels: int, width: int, stride: int, spec: ABCNetSpec) -> None:
        super().__init__()
        self.conv1, self.bn1 = MultiBaseConv2d(channels, width, stride, spec), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = MultiBaseConv2d(width, width, 1, spec), nn.BatchNorm2d(width)
        self.shortcut = strided_shortcut(channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.bn1(self.conv1(x))))
        return out + self.shortcut(x)  # type: ignore[no-any-return]


def build(spec: ABCNetSpec, _clip: float) -> nn.Sequential:
    """Module names are those of ``spec.layers()``."""
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    parts["stem"] = nn.Sequential(build_stem(spec.stem, spec.input_channels, spec.stem_channels, spec.stem_activation))
    parts |= residual_stages(spec, lambda channels, width, stride, _: ABCBlock(channels, width, stride, spec))
    parts["head"] = build_head(spec.channels[-1], spec.num_classes, relu=True)
    return nn.Sequential(parts)
