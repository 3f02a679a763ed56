"""Quantizers, their straight-through gradients, and the activations that binary networks put around them: each a small
module with its formula and its source. Maps are (N, C, H, W); every module keeps their shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLIP_THRESHOLD = 1.3
"""Gradients pass where |activation| is at most this (the value of all MeliusNet runs)."""


def bits(x: Tensor) -> Tensor:
    """1.0 where x >= 0 and 0.0 elsewhere: the bit that stands for sign +1, with sign(0) = +1."""
    return torch.ge(x, 0, out=torch.empty_like(x))


def sign(x: Tensor) -> Tensor:
    """+1.0 where x >= 0 and -1.0 elsewhere."""
    return bits(x).mul_(2).sub_(1)


def clipped_gradient(grad: Tensor, x: Tensor, clip: float | None) -> Tensor:
    """The straight-through gradient of sign: ``grad`` where |x| <= ``clip``, 0 elsewhere; for None ``ApproxSign``'s."""
    if clip is None:
        return approx_gradient(grad, x)
    # hardtanh's gradient is 1 strictly inside its bounds: the next float up makes |x| = clip pass, in one kernel.
    bound = float(np.nextafter(np.float32(clip), np.float32(np.inf)))
    return torch.ops.aten.hardtanh_backward(grad, x, -bound, bound)  # type: ignore[no-any-return]


def approx_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """``grad`` times 2 - 2|x| where |x| < 1, 0 elsewhere (Bi-Real Net, arXiv 1808.00278, equation 6)."""
    return grad * (2 - 2 * x.abs()).clamp_(min=0)


class _SignWithGradient(torch.autograd.Function):
    """sign(x) forward; backward the gradient that ``surrogate(grad, x)`` gives."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, surrogate: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        ctx.save_for_backward(x)
        ctx.surrogate = surrogate
        return sign(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return ctx.surrogate(grad, x), None


def _sign(x: Tensor, surrogate: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    if not torch.is_grad_enabled():
        return sign(x)
    return _SignWithGradient.apply(x, surrogate)  # type: ignore[no-untyped-call, no-any-return]


def straight_through(x: Tensor, quantized: Tensor) -> Tensor:
    """``quantized`` forward, the gradient of ``x`` backward."""
    return x + (quantized - x).detach() if torch.is_grad_enabled() else quantized


# Activations and weights to signs and small integers


class SteSign(nn.Module):
    """sign(x); gradient 1 where |x| <= clip, else 0 (BNN, arXiv 1602.02830, equation 4; clip 1 there, 1.25 in QuickNet,
    1.5 in BNext)."""

    def __init__(self, clip: float = 1.0) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, x: Tensor) -> Tensor:
        return _sign(x, self._gradient)

    def _gradient(self, grad: Tensor, x: Tensor) -> Tensor:
        return clipped_gradient(grad, x, self.clip)


class ApproxSign(nn.Module):
    """sign(x); gradient 2 + 2x on [-1, 0), 2 - 2x on [0, 1), else 0 (Bi-Real Net, arXiv 1808.00278, equation 6)."""

    def forward(self, x: Tensor) -> Tensor:
        return _sign(x, approx_gradient)


class RSign(nn.Module):
    """sign(x + shift) with a learnable shift a channel (ReActNet, arXiv 2003.03488, equation 2)."""

    def __init__(self, channels: int, quantizer: nn.Module) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(channels, 1, 1))
        self.quantizer = quantizer

    def forward(self, x: Tensor) -> Tensor:
        return self.quantizer(x + self.shift)  # type: ignore[no-any-return]


class DoReFaActivation(nn.Module):
    """round(clamp(x, 0, 1) * (2^k - 1)) / (2^k - 1); the gradient passes on [0, 1] (DoReFa-Net, arXiv 1606.06160,
    equation 5)."""

    def __init__(self, num_bits: int) -> None:
        super().__init__()
        self.levels = 2**num_bits - 1

    def forward(self, x: Tensor) -> Tensor:
        x = x.clamp(0, 1)
        return straight_through(x, torch.round(x * self.levels) / self.levels)


class SymmetricQuantizer(nn.Module):
    """max|x| * round(x / max|x| * q) / q with q = 2^(k-1) - 1: signed integers of k bits under one scale; the gradient
    passes (AQT's convolutions of 8 and 4 bits in PokeBNN, with a scale for the tensor). ``per_image``: a scale for each of a
    batch, for activations: with one for all, an image's logits would depend on what stands beside it."""

    def __init__(self, num_bits: int, per_image: bool = False) -> None:
        super().__init__()
        self.levels, self.per_image = 2 ** (num_bits - 1) - 1, per_image

    def forward(self, x: Tensor) -> Tensor:
        magnitude = x.detach().abs()
        largest = magnitude.amax(list(range(1, x.dim())), keepdim=True) if self.per_image else magnitude.max()
        scale = largest.clamp(min=1e-8) / self.levels
        return straight_through(x, torch.round(x / scale) * scale)


class MagnitudeScaling(nn.Module):
    """Weights to sign(w) * mean|w|, one mean a filter (``per_filter``) or one in all; the mean is a constant to the
    gradient, which passes where |w| <= 1 (Bi-Real Net, section 3.3; with ``clip`` None everywhere: DoReFa-Net,
    equation 7). XNOR-Net's alpha (arXiv 1603.05279, equation 6) is the same value."""

    def __init__(self, per_filter: bool = True, clip: float | None = 1.0) -> None:
        super().__init__()
        self.per_filter, self.clip = per_filter, clip

    def forward(self, weight: Tensor) -> Tensor:
        magnitude = weight.detach().abs()
        scale = (
            magnitude.flatten(1).mean(1).view(-1, *[1] * (weight.dim() - 1)) if self.per_filter else magnitude.mean()
        )
        latent = weight if self.clip is None else weight.clamp(-self.clip, self.clip)
        return straight_through(latent, sign(weight.detach()) * scale)


# Activations


class RPReLU(nn.Module):
    """PReLU(x - gamma) + zeta, slope and both shifts learnable a channel (ReActNet, equation 4)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(channels, 1, 1))
        self.slope = nn.Parameter(torch.full((channels,), 0.25))
        self.zeta = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.prelu(x - self.gamma, self.slope) + self.zeta


class DPReLU(nn.Module):
    """a(x - alpha) - beta with one learnable slope a for x above alpha and one below, all a channel (PokeBNN, arXiv
    2112.00133, section 4.2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(channels, 1, 1))
        self.beta = nn.Parameter(torch.zeros(channels, 1, 1))
        self.slope_above = nn.Parameter(torch.ones(channels, 1, 1))
        self.slope_below = nn.Parameter(torch.full((channels, 1, 1), 0.25))

    def forward(self, x: Tensor) -> Tensor:
        x = x - self.alpha
        return torch.where(x >= 0, self.slope_above, self.slope_below) * x - self.beta


class LeakyClip(nn.Module):
    """x on [-1, 1], slope 0.1 outside (the input of Bi-Real-50's one float convolution)."""

    def forward(self, x: Tensor) -> Tensor:
        clipped = x.clamp(-1, 1)
        return clipped + 0.1 * (x - clipped)


# Scales computed from a map, a channel each


class ChannelScaling(nn.Module):
    """``x`` times sigmoid(W2 relu(W1 mean(conv_input))) (Real-to-Binary, arXiv 2003.11535, section 4.3)."""

    def __init__(self, in_channels: int, out_channels: int, reduction: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(in_channels, in_channels // reduction, bias=False)
        self.expand = nn.Linear(in_channels // reduction, out_channels, bias=False)

    def forward(self, x: Tensor, conv_input: Tensor) -> Tensor:
        scale = torch.sigmoid(self.expand(F.relu(self.reduce(conv_input.mean((2, 3))))))
        return x * scale[:, :, None, None]


class SqueezeExcite(nn.Module):
    """``x`` times gate(expand(relu(reduce(mean(source))))): 1x1 convolutions with bias (arXiv 1709.01507, section 3);
    gate sigmoid in BNext, hard sigmoid in PokeBNN."""

    def __init__(self, reduce: nn.Module, expand: nn.Module, gate: nn.Module) -> None:
        super().__init__()
        self.reduce, self.expand, self.gate = reduce, expand, gate

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        pooled = source.mean((2, 3), keepdim=True)
        return x * self.gate(self.expand(F.relu(self.reduce(pooled))))  # type: ignore[no-any-return]


def input_scale(x: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """XNOR-Net's K (equation 11): mean |x| over channels, averaged over each position's window: (N, 1, H', W')."""
    mean = x.detach().abs().mean(1, keepdim=True)
    return F.avg_pool2d(mean, kernel, stride, padding)
