"""The kernels of stages against plain torch in float64: packed bits that count exactly, and both gradients of a
convolution with few outputs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from meliuscli.nn import binary_conv, kernels
from meliuscli.nn.direct import direct_gradients
from meliuscli.nn.families.dense import DenseBlock, ImprovementBlock, Stage

made = kernels.kernels()
pytestmark = pytest.mark.skipif(made is None, reason="no C compiler here")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize(("channels", "growth"), [(3, 1), (32, 8), (70, 24), (150, 70), (1050, 9)])
def test_counting_bits_equals_the_convolution_of_floats(
    channels: int, growth: int, dilation: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1050 channels in nine taps are more words than the bytes that first hold their counts can."""
    assert made is not None
    if not made.has_xnor:
        pytest.skip("this processor does not count bits in vectors")
    torch.manual_seed(4)
    blocks = DenseBlock(channels, growth, dilation, 1.3), ImprovementBlock(channels + growth, growth, dilation, 1.3)
    stage = Stage(nn.Sequential(*blocks)).to(dtype).train()
    x, outputs = torch.randn(2, channels, 5, 7, dtype=dtype), []
    monkeypatch.setattr(binary_conv, "integer_convolution", lambda: False)
    for packed in (True, False):
        monkeypatch.setattr(made, "has_xnor", packed)
        outputs.append(stage(x).detach())
    assert torch.equal(*outputs)


def gradients(x: Tensor, grad: Tensor, latent: Tensor, dilation: int) -> tuple[Tensor, Tensor]:
    """Of the kernel, with respect to the signs of ``x`` (N, C, H, W) and of ``latent``."""
    assert made is not None
    batch, channels, height, width = x.shape
    rows, outer = (v.permute(0, 2, 3, 1).reshape(-1, v.shape[1]).contiguous() for v in (x, grad))
    to, parts = torch.zeros_like(rows), torch.zeros(kernels.CHUNKS, 2, channels, dtype=x.dtype)
    ones, zeros = torch.ones(channels, dtype=x.dtype), torch.zeros(channels, dtype=x.dtype)

    def send(*place: Tensor | int) -> None:
        assert made is not None
        maps = to, channels, outer, outer.shape[1], rows, channels
        made("direct", x.dtype, *maps, ones, zeros, zeros, ones, 1e9, parts, *place, channels)

    vector = made.vector_bytes or 32  # as the kernel is compiled for a processor on which it does not pay
    grad_weight = direct_gradients(outer, latent, (batch, height, width), dilation, vector, send)
    torch.testing.assert_close(parts.sum(0), torch.stack([to.sum(0), (to * rows).sum(0)]), rtol=1e-4, atol=1e-3)
    return to.view(batch, height, width, channels).permute(0, 3, 1, 2), grad_weight


SHAPES = [
    (1, 1, 1, 1),
    (8, 8, 32, 32),
    (20, 5, 7, 9),
    (40, 16, 4, 4),
    (24, 13, 130, 3),
    (32, 9, 3, 140),
    (72, 47, 16, 5),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dilation", [1, 3])
@pytest.mark.parametrize(("channels", "outputs", "height", "width"), SHAPES)
def test_direct_gradients_are_those_of_a_plain_convolution(
    channels: int, outputs: int, height: int, width: int, dilation: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(5)
    x, latent = torch.randn(3, channels, height, width), torch.randn(outputs, channels, 3, 3)
    grad = torch.randn(3, outputs, height, width)
    signs, weights = (torch.where(v >= 0, 1.0, -1.0).double().requires_grad_() for v in (x, latent))
    halved = F.conv2d(F.pad(signs, [dilation] * 4, value=-1.0), weights, dilation=dilation) / 2
    wanted = torch.autograd.grad(halved, [signs, weights], grad.double())
    found = gradients(x.to(dtype), grad.to(dtype), latent.to(dtype), dilation)
    digits = 1e-5 if dtype == torch.float32 else 1e-13
    for mine, other in zip(found, wanted, strict=True):
        scale = max(1.0, other.abs().max().item())
        torch.testing.assert_close(mine.double(), other, rtol=digits, atol=digits * scale)


def test_direct_gradients_do_not_depend_on_the_number_of_threads() -> None:
    torch.manual_seed(6)
    x, grad, latent = torch.randn(5, 20, 9, 11), torch.randn(5, 6, 9, 11), torch.randn(6, 20, 3, 3)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(gradients(x, grad, latent, 1))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, found[0], strict=True))
