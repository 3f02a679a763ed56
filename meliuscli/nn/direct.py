"""Gradients of a binary 3x3 convolution with few output channels, by a kernel that holds a few lines of the map in the
cache: with few outputs, a general convolution spends its time on moving maps."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from meliuscli.nn.binary_conv import BinaryConv2d
from meliuscli.nn.kernels import CHUNKS, Kernels
from meliuscli.nn.quantizers import sign

DIRECT_OUTPUTS = 47
"""Up to so many output channels the kernel beats torch's convolution gradients."""

QUAD = 4
"""As in kernels/direct.h: outputs are padded to quads, channels to vectors."""


def direct_pays(call: Kernels, conv: BinaryConv2d, dtype: torch.dtype) -> bool:
    """Whether to take ``direct_gradients`` for maps of ``dtype``, and whether they are possible."""
    if not call.vector_bytes or (dtype == torch.bfloat16 and call.has_bfloat16):
        return False
    return conv.stride == 1 and conv.weight.shape[0] <= DIRECT_OUTPUTS


def direct_gradients(
    grad: Tensor,
    latent: Tensor,
    size: tuple[int, int, int],
    dilation: int,
    vector_bytes: int,
    send: Callable[..., None],
) -> Tensor:
    """The gradient with respect to the weights ``latent`` (outputs, channels, 3, 3), in their type.

    ``grad`` is (N * H * W, outputs) of a map of ``size`` N, H, W. ``vector_bytes`` is the kernel's. ``send`` calls it, with
    the weights, the sums that it adds to, and the sizes of both; it passes the gradient of the input on."""
    outputs, channels = latent.shape[:2]
    # Halves, so that the gradient of the input is the one with respect to signs, not bits.
    halves = sign(latent).mul_(0.5).flip(2, 3).permute(2, 3, 0, 1).reshape(9, outputs, channels)
    weights = pad(halves, (0, -channels % (vector_bytes // latent.element_size()), 0, -outputs % QUAD)).contiguous()
    _, padded, wide = weights.shape
    sums = torch.zeros(CHUNKS, 9, padded, wide, dtype=latent.dtype)
    send(weights, sums, padded, wide, *size, dilation)
    taps = sums.sum(0)[:, :outputs, :channels].flip(0).view(3, 3, outputs, channels).permute(2, 3, 0, 1)
    return taps - 0.5 * grad.sum(0, dtype=latent.dtype)[:, None, None, None]
