"""The binary convolution of BMXNet, with its straight-through gradient written out.

Its definition: signs s of the inputs and w of the weights, padding with -1, y = conv(s, w), and the result
(y + K) / 2 with K = in_channels * 9, the range [0, K] of xnor and popcount. With bits b = (s + 1) / 2 that equals
conv(b, w) + (K - sum(w)) / 2, where the padding is 0: no border has to be built, and every term is exact in float32.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from meliuscli.nn.quantizers import CLIP_THRESHOLD, bits, clipped_gradient, sign

SMALL_MAP = 8
SMALL_BYTES = 2**19
"""Up to this height and width, and this size of the input, one matrix product over all nine taps beats torch's
convolution gradients, which are mostly set-up there (``tests/benchmarks/bench_training.py``)."""


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
            return _BinaryConv.apply(x, self.weight, self)  # type: ignore[no-untyped-call, no-any-return]
        dtype = element_type(x)
        with torch.autocast(x.device.type, enabled=False):
            return _counts(bits(x).to(dtype), self.weight, self, dtype)

    def extra_repr(self) -> str:
        out_channels, in_channels = self.weight.shape[:2]
        shape = f"{in_channels}, {out_channels}, kernel_size=3, stride={self.stride}"
        return f"{shape}, dilation={self.dilation}, clip={self.clip}"


def element_type(x: Tensor) -> torch.dtype:
    """What a map is convolved in: autocast's type where autocast is on (float64 stays), otherwise that of ``x``."""
    device = x.device.type
    if torch.is_autocast_enabled(device) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return x.dtype


def centred_counts(signs: Tensor, latent: Tensor, conv: BinaryConv2d, dtype: torch.dtype) -> Tensor:
    """The convolution's result less K / 2, from bits as bytes (N, C, H, W). Exact, but for ``dtype`` itself."""
    if dtype == torch.float64 or signs.device.type != "cpu" or not integer_convolution():
        return _centred(signs.to(dtype), latent, conv, dtype)
    weight, stride, padding = sign(latent), [conv.stride] * 2, [conv.dilation] * 2
    shape, ones = list(signs.shape), torch.ones(weight.shape[0])
    packed = torch.ops.onednn.qconv_prepack(weight.to(torch.int8), ones, 1.0, 0, stride, padding, padding, 1, shape)
    zeros, offset = torch.zeros(weight.shape[0], dtype=torch.int32), weight.sum((1, 2, 3), dtype=torch.float32) / -2
    out: Tensor = torch.ops.onednn.qconv2d_pointwise(
        signs, 1.0, 0, packed, ones, zeros, offset, stride, padding, padding, 1, 1.0, 0, dtype, "none", [], ""
    )
    return out


def _centred(bits: Tensor, latent: Tensor, conv: BinaryConv2d, dtype: torch.dtype) -> Tensor:
    weight = sign(latent)
    offset = weight.sum((1, 2, 3)) / -2
    return F.conv2d(
        bits, weight.to(dtype), offset.to(dtype), conv.stride, padding=conv.dilation, dilation=conv.dilation
    )


def _counts(bits: Tensor, latent: Tensor, conv: BinaryConv2d, dtype: torch.dtype) -> Tensor:
    """(y + K) / 2 from bits, in no less than float32: a short type would round it at K / 2, far from its own mean."""
    return _lifted(_centred(bits, latent, conv, dtype), latent)


def _lifted(centred: Tensor, latent: Tensor) -> Tensor:
    return centred.to(torch.promote_types(centred.dtype, torch.float32)) + latent[0].numel() / 2


@cache
def integer_convolution() -> bool:
    """Whether torch multiplies bytes here, exactly: on processors with VNNI four times as fast as float32."""
    try:
        return bool(torch.cpu._is_vnni_supported()) and hasattr(torch.ops.onednn, "qconv2d_pointwise")
    except AttributeError:
        return False


def convolution_gradients(grad: Tensor, signs: Tensor, latent: Tensor, conv: BinaryConv2d) -> tuple[Tensor, Tensor]:
    """Gradients with respect to the input's signs, from its bits, and to the latent weights."""
    gradients = _small_map_gradients if _is_small(signs, conv.stride) else _conv_gradients
    # The weights are halved so that the first gradient is the one with respect to signs, not bits.
    halves = sign(latent).mul_(0.5).to(grad.dtype)
    grad_signs, grad_weight = gradients(grad, signs, halves, conv.stride, conv.dilation)
    grad_weight = grad_weight.to(latent.dtype)
    grad_weight -= 0.5 * grad.sum((0, 2, 3), dtype=grad_weight.dtype)[:, None, None, None]
    return grad_signs, grad_weight


class _BinaryConv(torch.autograd.Function):
    """Keeps the input alone; its bits and the weights' signs are computed again for the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, latent: Tensor, conv: BinaryConv2d) -> Tensor:
        ctx.save_for_backward(x, latent)
        ctx.conv, ctx.dtype = conv, element_type(x)
        with torch.autocast(x.device.type, enabled=False):
            return _lifted(centred_counts(torch.ge(x, 0).view(torch.uint8), latent, conv, ctx.dtype), latent)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, latent = ctx.saved_tensors
        with torch.autocast(x.device.type, enabled=False):
            signs = bits(x).to(ctx.dtype)
            grad_signs, grad_weight = convolution_gradients(grad.to(ctx.dtype), signs, latent, ctx.conv)
            return clipped_gradient(grad_signs.to(x.dtype), x, ctx.conv.clip), grad_weight, None


def _is_small(x: Tensor, stride: int) -> bool:
    return stride == 1 and max(x.shape[2:]) <= SMALL_MAP and x.numel() * x.element_size() <= SMALL_BYTES


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
