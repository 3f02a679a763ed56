"""The binary convolution of BMXNet, with its straight-through gradient written out.

Its definition: signs s of the inputs and w of the weights, padding with -1, y = conv(s, w), and the result
(y + K) / 2 with K = in_channels * 9, the range [0, K] of xnor and popcount. With bits b = (s + 1) / 2 that equals
conv(b, w) + (K - sum(w)) / 2, where the padding is 0: no border has to be built, and every term is exact in float32.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from meliuscli.nn.quantizers import CLIP_THRESHOLD, bits, clipped_gradient, sign

SMALL_MAP = 8
"""Up to this height and width one matrix product over all nine taps beats torch's convolution gradients, which are
mostly set-up there (``tests/benchmarks/bench_training.py``)."""


class BinaryConv2d(nn.Module):
    """Binary 3x3 convolution with padding: (N, in_channels, H, W) -> (N, out_channels, H', W').

    ``weight`` holds the latent float weights. The gradient passes the activations' sign where |input| <= ``clip`` (as
    ApproxSign's where it is None) and the weights' sign unchanged."""

    weight_bits = activation_bits = 1

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        dilation: int = 1,
        clip: float = CLIP_THRESHOLD,
        stride: int = 1,
    ) -> None:
        super().__init__()
        self.dilation, self.stride = dilation, stride
        self.clip: float | None = clip
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 3, 3))
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return _BinaryConv.apply(x, self.weight, self.stride, self.dilation, self.clip)  # type: ignore[no-untyped-call, no-any-return]
        return _binary_conv(x, self.weight, self.stride, self.dilation)

    def extra_repr(self) -> str:
        out_channels, in_channels = self.weight.shape[:2]
        shape = f"{in_channels}, {out_channels}, kernel_size=3, stride={self.stride}"
        return f"{shape}, dilation={self.dilation}, clip={self.clip}"


def _binary_conv(x: Tensor, latent: Tensor, stride: int, dilation: int) -> Tensor:
    weight = sign(latent)
    offset = (weight[0].numel() - weight.sum((1, 2, 3))) / 2
    if torch.is_autocast_enabled(x.device.type):
        # The products' sums are near 0 and fit a narrow type; K / 2 is added in float32.
        sums = F.conv2d(bits(x), weight, None, stride, padding=dilation, dilation=dilation)
        return sums + offset[:, None, None]
    return F.conv2d(bits(x), weight, offset, stride, padding=dilation, dilation=dilation)


class _BinaryConv(torch.autograd.Function):
    """Keeps the input alone; its bits and the weights' signs are computed again for the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, latent: Tensor, stride: int, dilation: int, clip: float | None) -> Tensor:
        ctx.save_for_backward(x, latent)
        ctx.stride, ctx.dilation, ctx.clip = stride, dilation, clip
        kind = x.device.type
        ctx.dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        return _binary_conv(x, latent, stride, dilation)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        x, latent = ctx.saved_tensors
        small = ctx.stride == 1 and max(x.shape[2:]) <= SMALL_MAP
        gradients = _small_map_gradients if small else _conv_gradients
        # The weights are halved so that the first gradient is the one with respect to signs, not bits.
        own, signs, halves = (factor.to(ctx.dtype) for factor in (grad, bits(x), sign(latent).mul_(0.5)))
        grad_signs, grad_weight = gradients(own, signs, halves, ctx.stride, ctx.dilation)
        grad_weight = grad_weight.to(latent.dtype)
        grad_weight -= 0.5 * grad.sum((0, 2, 3))[:, None, None, None]
        return clipped_gradient(grad_signs.to(x.dtype), x, ctx.clip), grad_weight, None, None, None


def _conv_gradients(grad: Tensor, x: Tensor, weight: Tensor, stride: int, d: int) -> tuple[Tensor, Tensor]:
    """Gradients of a zero-padded convolution with respect to its input and its weight."""
    grad_input, grad_weight, _ = torch.ops.aten.convolution_backward(
        grad, x, weight, [0], [stride, stride], [d, d], [d, d], False, [0, 0], 1, [True, True, False]
    )
    return grad_input, grad_weight


def _small_map_gradients(grad: Tensor, x: Tensor, weight: Tensor, _stride: int, d: int) -> tuple[Tensor, Tensor]:
    """The same as two matrix products. ``fed`` holds, for each input pixel, the gradients of the nine outputs that it
    feeds (last tap first)."""
    (batch, channels, height, width), out_channels = x.shape, weight.shape[0]
    padded = F.pad(grad.permute(0, 2, 3, 1), (0, 0, d, d, d, d))
    n, y, across, c = padded.stride()
    neighbours = padded.as_strided((batch, height, width, 3, 3, out_channels), (n, y, across, d * y, d * across, c))
    fed = neighbours.reshape(batch * height * width, 9 * out_channels)
    grad_input = fed @ weight.flip(2, 3).permute(2, 3, 0, 1).reshape(9 * out_channels, channels)
    rows = x.permute(0, 2, 3, 1).reshape(-1, channels)
    grad_weight = (rows.t() @ fed).view(channels, 3, 3, out_channels).flip(1, 2).permute(3, 0, 1, 2)
    return grad_input.view(batch, height, width, channels).permute(0, 3, 1, 2), grad_weight
