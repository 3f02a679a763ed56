"""Few values that are no evidence, tables, and weights that several layers share or join."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from test_foreign_values import MACS, Net, counted, macs_of, sign, weights
from torch import Tensor, nn
from torch.nn.utils import parametrize


class Signs(nn.Module):
    def forward(self, w: Tensor) -> Tensor:
        return sign(w)


def beside(x: Tensor, outlier: float) -> Tensor:
    """The first feature of each row replaced by a large one."""
    return torch.cat([torch.full_like(x[..., :1], outlier), x[..., 1:]], -1)


def stored(own: object) -> dict[int, int]:
    return dict(own.count.total.weights)  # type: ignore[attr-defined]


# Few values that are no evidence


@pytest.mark.parametrize("outlier", [30.0, 3e3, 1e5, 1e7])
@pytest.mark.parametrize("rows", [1, 4, 64])
def test_activations_beside_an_outlier_are_floats(outlier: float, rows: int) -> None:
    torch.manual_seed(0)
    for before in (lambda x: x, F.relu):
        net = Net(lambda m, x, f=before: F.linear(beside(f(x), outlier), sign(m.w)), w=weights(32, 256))
        assert macs_of(counted(net, f"float32:{rows}x256")) == {"1x32": rows * 256 * 32}


@pytest.mark.parametrize("outlier", [3e2, 3e4, 1e7])
def test_weights_beside_an_outlier_are_floats(outlier: float) -> None:
    torch.manual_seed(0)
    for change in (
        lambda w: beside(w, outlier),
        lambda w: w.view(-1).scatter(0, torch.tensor([9]), outlier).view_as(w),
    ):
        own = counted(Net(lambda m, x: F.linear(x, m.w), w=nn.Parameter(change(torch.randn(32, 16)))), "float32:4x16")
        assert (macs_of(own), stored(own)) == ({"32x32": 4 * 16 * 32}, {32: 512})


@pytest.mark.parametrize("width", [4, 8, 21, 64])
def test_a_fresh_filter_that_makes_a_map_larger_is_no_code(width: int) -> None:
    layer = nn.ConvTranspose2d(width, width, 4, stride=2, padding=1, bias=False)
    line = torch.tensor([0.25, 0.75, 0.75, 0.25])
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[range(width), range(width)] = line[:, None] * line
    assert stored(counted(layer, f"{width}x8x8")) == {32: width * width * 16}


@pytest.mark.parametrize(
    "fresh",
    [
        lambda w: w[::4].repeat_interleave(4, 0),  # as for a pixel shuffle
        lambda w: w[:1].expand_as(w),
        lambda w: torch.tensor([0.0, 1, 0, 1, -4, 1, 0, 1, 0]).expand(32, 9),
        lambda w: torch.tensor([-1.0, -2, -1, -2, 13, -2, -1, -2, -1]).expand(32, 9),
        lambda w: torch.stack([torch.tensor([1.0, 0, -1, 2, 0, -2, 1, 0, -1]).view(3, 3)] * 32).view(32, 9),
    ],
)
def test_rows_that_are_copies_are_no_code(fresh: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    w = fresh(torch.randn(32, 4))
    own = counted(Net(lambda m, x: F.linear(x, m.w), w=nn.Parameter(w.clone())), f"float32:4x{w.shape[1]}")
    assert stored(own) == {32: w.numel()}


def test_tokens_that_come_again_are_no_steps_and_few_inputs_may_be_signs() -> None:
    torch.manual_seed(0)
    table, w = nn.Embedding(100, 32), weights(16, 32)
    net = Net(lambda m, ids: F.linear(m.table(ids), sign(m.w)), w=w)
    net.table = table
    assert macs_of(counted(net, "int64:1x16")) == {"1x32": 16 * 16 * 32}
    few = counted(Net(lambda m, x: F.linear(sign(x), sign(m.w)), w=weights(16, 2)), "float32:32x2")
    assert macs_of(few) == {"1x1": 32 * 16 * 2}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.half])
def test_a_narrow_range_in_a_type_of_few_digits_is_float(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    near_one = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
    with torch.no_grad():
        near_one.weight.copy_(1 + 4e-4 * torch.randn(8, 1, 3, 3))
    assert stored(counted(near_one.to(dtype), "8x8x8")) == {32: 72}
    half = Net(lambda m, x: torch.sigmoid(x / 1000).to(dtype) @ sign(m.w).to(dtype), w=weights(64, 32))
    assert macs_of(counted(half, "float32:32x64")) == {"1x32": 32 * 64 * 32}


@pytest.mark.parametrize(
    ("between", "bits"),
    [
        (F.relu, 32),
        (lambda y: F.avg_pool2d(y, 3, 1, 1), 32),
        (sign, 1),
        (lambda y: y + (sign(y) - y).detach(), 1),
        (lambda y: 0.5 * torch.copysign(torch.ones(()), y), 1),
        (lambda y: torch.bernoulli(torch.sigmoid(y - 3)), 1),
        (lambda y: (3 * torch.sigmoid(y)).round() / 3, 2),
        (lambda y: torch.div(y.clamp(0, 7), 2, rounding_mode="floor"), 2),
        (lambda y: (y.int() >> 1).clamp(0, 3).float(), 2),
    ],
)
def test_sums_are_floats_until_something_makes_steps_of_them(between: Callable[[Tensor], Tensor], bits: int) -> None:
    torch.manual_seed(0)

    def run(m: nn.Module, x: Tensor) -> Tensor:
        return F.conv2d(between(F.conv2d(sign(x), sign(m.v))), sign(m.w), padding=1)  # type: ignore[arg-type]

    own = counted(Net(run, v=weights(8, 8, 1, 1), w=weights(8, 8, 3, 3)))
    wanted = {"1x1": 8 * 8 * 256}
    wanted[f"1x{bits}"] = wanted.get(f"1x{bits}", 0) + MACS
    assert macs_of(own) == wanted


def test_floats_of_a_byte_have_eight_bits() -> None:
    small = torch.randn(32, 64).to(torch.float8_e4m3fn)

    def scaled(m: nn.Module, x: Tensor) -> Tensor:
        one = torch.ones(())
        return torch._scaled_mm(x.to(small.dtype), m.w.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16)  # type: ignore[attr-defined, operator, union-attr]

    own = counted(Net(scaled, w=small), "float32:16x64")
    assert (macs_of(own), stored(own)) == ({"8x8": 16 * 64 * 32}, {8: 2048})


# Tables


class Reading(nn.Module):
    def __init__(self, table: nn.Module | Tensor, head: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.head = head
        if isinstance(table, nn.Module):
            self.table = table
        else:
            self.register_buffer("weight", table)

    def forward(self, ids: Tensor) -> Tensor:
        weight = self.table.weight if hasattr(self, "table") else self.weight
        return self.head(weight, ids)  # type: ignore[arg-type]


def binary_table() -> nn.Embedding:
    table = nn.Embedding(100, 32)
    parametrize.register_parametrization(table, "weight", Signs())
    return table


@pytest.mark.parametrize(
    ("table", "head", "weights_"),
    [
        (lambda: nn.Embedding(100, 32), lambda w, ids: F.embedding(ids, w), {32: 3200}),
        (binary_table, lambda w, ids: F.embedding(ids, w), {1: 3200}),
        (binary_table, lambda w, ids: F.embedding_bag(ids, w, mode="sum"), {1: 3200}),
        (lambda: torch.randint(-127, 128, (100, 32), dtype=torch.int8), lambda w, ids: w[ids].float(), {8: 3200}),
        (lambda: torch.rand(100, 32) > 0.5, lambda w, ids: F.embedding(ids, w.float() - 0.5), {1: 3200}),
        (lambda: torch.randn(100, 32).cos(), lambda w, ids: w[ids], {}),  # places, or a cache of them
        (  # a float table, though the head makes signs of it
            lambda: nn.Embedding(100, 32),
            lambda w, ids: F.linear(sign(F.embedding(ids, w)), sign(w)),
            {32: 3200},
        ),
    ],
)
def test_tables_count_at_the_bits_of_what_is_looked_up(
    table: Callable[[], nn.Module | Tensor], head: Callable[[Tensor, Tensor], Tensor], weights_: dict[int, int]
) -> None:
    torch.manual_seed(0)
    own = counted(Reading(table(), head), "ids=int64:2x16")
    assert stored(own) == weights_
    assert "not seen" not in "".join(own.recognised.values())
    assert own.count.total.size_bytes == sum(bits * number for bits, number in weights_.items()) // 8
    assert not any(verdict.doubt for verdict in own.verdicts)


def test_tables_of_a_network_of_lookups_and_codes_of_a_book() -> None:
    places = torch.randint(0, 64, (32, 4))

    def look_up(m: nn.Module, x: Tensor) -> Tensor:
        address = ((x >= 0).long()[:, places] << torch.arange(4)).sum(-1)
        return torch.gather(m.t.float().expand(len(x), 32, 16), 2, address[..., None])  # type: ignore[operator, union-attr]

    own = counted(Net(look_up, t=torch.rand(32, 16) > 0.5), "float32:4x64")
    assert (macs_of(own), stored(own)) == ({}, {1: 512})
    codes = torch.randint(0, 256, (32, 8), dtype=torch.uint8)
    book = Net(lambda m, x: F.linear(x, m.book[m.codes.long()].view(32, 64)), codes=codes, book=weights(256, 8))
    assert stored(counted(book, "float32:4x64")) == {32: 2048, 8: 256}


# Weights of cells, shared and joined ones


@pytest.mark.parametrize(("cell", "gates"), [(nn.LSTM, 4), (nn.GRU, 3)])
def test_cells_with_binary_weights(cell: type[nn.Module], gates: int) -> None:
    made = cell(8, 16)
    for name in ("weight_ih_l0", "weight_hh_l0"):
        parametrize.register_parametrization(made, name, Signs())
    own = counted(made, "float32:10x1x8")
    assert macs_of(own) == {"1x32": 10 * gates * 16 * (8 + 16)}
    assert stored(own) == {1: gates * 16 * (8 + 16), 32: 2 * gates * 16}


def test_one_tensor_as_floats_and_as_signs_is_stored_as_floats() -> None:
    own = counted(Net(lambda m, x: F.linear(sign(F.linear(x, m.w)), sign(m.w).t()), w=weights(32, 64)), "float32:1x64")
    assert (macs_of(own), stored(own)) == ({"32x32": 2048, "1x1": 2048}, {32: 2048})


@pytest.mark.parametrize("join", [torch.cat, torch.stack])
def test_joined_weights_are_those_of_their_layers(join: Callable[[list[Tensor]], Tensor]) -> None:
    def run(m: nn.Module, x: Tensor) -> Tensor:
        return sign(x) @ sign(join([part.weight for part in m.parts])).mT  # type: ignore[union-attr, misc]

    net = Net(run)
    net.parts = nn.ModuleList(nn.Linear(32, 32, bias=False) for _ in range(3))
    own = counted(net, "float32:8x32")
    assert {row.name: row.macs[0][1] for row in own.count.layers} == {f"parts.{n}": 8 * 32 * 32 for n in range(3)}
    assert stored(own) == {1: 3 * 1024}
