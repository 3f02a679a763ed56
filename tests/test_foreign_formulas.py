"""Products for which torch's counter has no formula, and those that are none of torch's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from test_foreign_values import MACS, Net, counted, macs_of, weights
from torch import Tensor, nn

BYTES = torch.randint(-127, 128, (32, 64), dtype=torch.int8)


def bilinear() -> nn.Module:
    return Net(lambda m, x: F.bilinear(x, x[:, :4], m.w), w=weights(5, 6, 4))


def over_time() -> nn.Module:
    return Net(lambda m, x: torch.conv_tbc(x, m.w, x.new_zeros(16), 1), w=weights(3, 8, 16))


def of_eight_bits() -> nn.Module:
    return Net(lambda m, x: torch._weight_int8pack_mm(x, m.w, torch.ones(32, dtype=x.dtype)), w=BYTES)


def of_four_bits() -> nn.Module:
    integers = torch.ops.aten._convert_weight_to_int4pack_for_cpu(torch.randint(0, 16, (64, 128), dtype=torch.int32), 2)
    scales = torch.rand(4, 64, 2, dtype=torch.bfloat16)
    return Net(lambda m, x: torch.ops.aten._weight_int4pack_mm_for_cpu(x, m.w, 32, m.s), w=integers, s=scales)


@pytest.mark.parametrize(
    ("make", "shape", "bits", "macs", "stored"),
    [
        (bilinear, "float32:3x6", "32x32", 3 * 5 * (6 * 4 + 4), (32, 120)),
        (over_time, "float32:10x1x8", "32x32", 10 * 3 * 8 * 16, (32, 3 * 8 * 16)),
        (of_eight_bits, "bfloat16:4x64", "8x32", 4 * 64 * 32, (8, 64 * 32)),
        (of_four_bits, "bfloat16:8x128", "4x32", 8 * 64 * 128, (4, 64 * 128)),
    ],
)
def test_formulas_of_our_own(
    make: Callable[[], nn.Module], shape: str, bits: str, macs: int, stored: tuple[int, int]
) -> None:
    own = counted(make(), shape)
    assert (macs_of(own), own.count.total.weights) == ({bits: macs}, (stored,))
    assert not any(verdict.doubt for verdict in own.verdicts)


@pytest.mark.parametrize(
    ("function", "what"),
    [
        (lambda m, x: torch.fft.rfft(x).abs(), "a Fourier transform"),
        (lambda m, x: torch.linalg.inv(x @ x.T + torch.eye(4)), "a decomposition or a solution of equations"),
        (lambda m, x: torch.cdist(x, x), "distances of all pairs"),
    ],
)
def test_what_multiplies_without_a_formula_is_doubted_in_its_own_words(
    function: Callable[..., Tensor], what: str
) -> None:
    (verdict,) = counted(Net(function), "float32:4x8").verdicts
    assert verdict.doubt
    assert verdict.verdict.startswith(what)


def test_weights_that_are_multiplied_one_by_one_and_added_up_are_doubted() -> None:
    own = counted(Net(lambda m, x: (x[:, None] * m.w).sum(-1), w=weights(32, 64)), "float32:1x64")
    assert macs_of(own) == {"32x32": 64 * 32}
    assert [verdict.what for verdict in own.verdicts if verdict.doubt] == ["aten::sum"]

    def modulated(m: nn.Module, x: Tensor) -> Tensor:
        w = m.w * x.mean((2, 3))[0, :, None, None]  # type: ignore[operator]
        return F.conv2d(x, w * torch.rsqrt(w.pow(2).sum((1, 2, 3), keepdim=True)), padding=1)

    own = counted(Net(modulated, w=weights(8, 8, 3, 3)))
    assert (macs_of(own), own.verdicts) == ({"32x32": MACS}, ())


# Signs that are packed


def packed(signs: Tensor) -> Tensor:
    return (signs.view(*signs.shape[:-1], -1, 8).long() << torch.arange(8)).sum(-1).to(torch.uint8)


@pytest.mark.parametrize(
    ("held", "product"),
    [
        (packed(torch.rand(16, 64) > 0.5), lambda w, x: torch.bitwise_xor(packed(x > 0)[:, None], w)),
        (packed(torch.rand(16, 64) > 0.5), lambda w, x: packed(x > 0)[:, None] & w),
        (torch.rand(16, 64) > 0.5, lambda w, x: (x > 0)[:, None] ^ w),
        (weights(16, 64), lambda w, x: torch.logical_xor((x > 0)[:, None], w > 0)),
    ],
)
def test_packed_signs_that_are_multiplied_by_hand(held: Tensor, product: Callable[[Tensor, Tensor], Tensor]) -> None:
    own = counted(Net(lambda m, x: product(m.w, x).sum(-1), w=held), "float32:4x64")
    assert (macs_of(own), dict(own.count.total.weights)) == ({"1x1": 4 * 16 * 64}, {1: 16 * 64})
    assert own.count.total.size_bytes == 128


def test_masks_are_no_products() -> None:
    below = torch.ones(16, 16, dtype=torch.bool).tril()
    own = counted(Net(lambda m, ids, mask: m.below & mask[:, None] & (ids > 0), below=below), "int64:1x16", "bool:1x16")
    assert (macs_of(own), dict(own.count.total.weights), own.verdicts) == ({}, {}, ())
