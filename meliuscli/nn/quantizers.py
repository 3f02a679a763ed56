"""Signs with straight-through gradients (MeliusNet's recipe: BMXNet's ``det_sign`` on activations and weights)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

CLIP_THRESHOLD = 1.3
"""Gradients pass where |activation| is at most this (the value of all MeliusNet runs)."""


def _sign(x: Tensor, out: Tensor | None = None, magnitude: float = 1.0) -> Tensor:
    """``magnitude`` where x >= 0 and ``-magnitude`` elsewhere, in one pass; adding 0 turns -0.0 into 0.0."""
    return torch.copysign(x.new_full((), magnitude), x + 0.0, out=out)


class _ActivationSign(torch.autograd.Function):
    """Sign to {-1, +1} with sign(0) = +1, written into a map with a border of -1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, clip: float, padding: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.clip, ctx.padding = clip, padding
        return _padded_sign(x, padding)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        inner = grad[..., ctx.padding : grad.shape[-2] - ctx.padding, ctx.padding : grad.shape[-1] - ctx.padding]
        # hardtanh's gradient is 1 strictly inside its bounds: the next float up makes |x| = clip pass, in one kernel.
        bound = float(np.nextafter(np.float32(ctx.clip), np.float32(np.inf)))
        return torch.ops.aten.hardtanh_backward(inner, x, -bound, bound), None, None


def _padded_sign(x: Tensor, padding: int) -> Tensor:
    if padding == 0:
        return _sign(x)
    batch, channels, height, width = x.shape
    layout = torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    shape = (batch, channels, height + 2 * padding, width + 2 * padding)
    padded = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout)
    for border in (padded[:, :, :padding], padded[:, :, -padding:], padded[..., :padding], padded[..., -padding:]):
        border.fill_(-1.0)
    _sign(x, out=padded[:, :, padding:-padding, padding:-padding])
    return padded


class _WeightSign(torch.autograd.Function):
    """Sign times ``magnitude``; the gradient is the plain identity times ``magnitude``."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, magnitude: float) -> Tensor:
        ctx.magnitude = magnitude
        return _sign(weight, magnitude=magnitude)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.magnitude, None


def sign_activations(x: Tensor, clip: float = CLIP_THRESHOLD, padding: int = 0) -> Tensor:
    """Binarize activations of shape (N, C, H, W) to {-1, +1}; sign(0) = +1.

    Returns (N, C, H + 2 padding, W + 2 padding) with a border of -1. The gradient is passed where |x| <= ``clip``
    and is 0 elsewhere."""
    return _ActivationSign.apply(x, clip, padding)  # type: ignore[no-untyped-call, no-any-return]


def sign_weights(weight: Tensor, magnitude: float = 1.0) -> Tensor:
    """Binarize latent weights to {-magnitude, +magnitude}; the gradient passes unchanged but for that factor."""
    return _WeightSign.apply(weight, magnitude)  # type: ignore[no-untyped-call, no-any-return]
