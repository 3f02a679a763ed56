"""Gradients of a 3x3 convolution by Winograd's F(2x2, 3x3): 16 products of matrices a tile of 2x2 pixels in place of 36.

Signs, and what their transforms make of them, are exact in every type; the error is that of the gradients' own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from meliuscli.nn.binary_conv import BinaryConv2d
from meliuscli.nn.kernels import Kernels

PIECE_BYTES = 2**22
"""Of the largest operand of a product: pieces of this size stay in the cache."""

TILED_OUTPUTS = 48
"""From so many output channels on, tiles beat direct convolutions (measured: a gain at 64, a loss at 16)."""


def tiles_pay(conv: BinaryConv2d, height: int, width: int) -> bool:
    """Whether to take ``tiled_gradients``, and whether they are possible."""
    return conv.dilation == conv.stride == 1 and min(height, width) > 1 and conv.weight.shape[0] >= TILED_OUTPUTS


def tiled_gradients(
    call: Kernels,
    grad: Tensor,
    signs: Tensor,
    latent: Tensor,
    size: tuple[int, int, int],
    send: Callable[..., None],
) -> Tensor:
    """The gradient with respect to the weights; that of the input's signs goes to ``send`` in pieces.

    ``grad`` and ``signs`` (as bits) are (N * H * W, channels) of a map of ``size`` N, H, W. ``send`` gets planes (16,
    tiles, channels), which A^T m A turns into pixels, and the first tile, H, W and the number of tiles."""
    dtype, (batch, height, width) = grad.dtype, size
    (outputs, channels), (by_output, by_channel, _, by_tap) = latent.shape[:2], latent.stride()
    weights = torch.empty(16, outputs, channels, dtype=dtype)
    call("weight_planes", dtype, weights, latent, outputs, channels, by_output, by_channel, by_tap)
    num = batch * -(-height // 2) * -(-width // 2)
    piece = max(64, PIECE_BYTES // (16 * channels * grad.element_size()))
    products = torch.zeros(16, channels, outputs, dtype=latent.dtype)
    for begin in range(0, num, piece):
        rows = min(piece, num - begin)
        place = begin, height, width, rows
        around, tiles = (torch.empty(16, rows, outputs, dtype=dtype) for _ in range(2))
        patches = torch.empty(16, rows, channels, dtype=dtype)
        call("patches", dtype, around, grad, *place, outputs)
        call("tiles", dtype, tiles, grad, *place, outputs)
        call("patches", dtype, patches, signs, *place, channels)
        if dtype == latent.dtype:
            products.baddbmm_(patches.transpose(1, 2), tiles)
        else:
            products += torch.bmm(patches.transpose(1, 2), tiles)
        send(torch.bmm(around, weights, out=patches), *place)
    return _taps(products) - 0.5 * grad.sum(0, dtype=latent.dtype)[:, None, None, None]


def _taps(products: Tensor) -> Tensor:
    """G^T m G: (16, channels, outputs) -> (outputs, channels, 3, 3)."""
    g = products.new_tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
    taps = torch.kron(g, g).t() @ products.flatten(1)
    return taps.view(3, 3, *products.shape[1:]).permute(3, 2, 0, 1)
