"""The kernels of stages against plain torch in float64: packed bits that count exactly, and both gradients of a
convolution with few outputs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from meliuscli.nn import binary_conv, kernels
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
