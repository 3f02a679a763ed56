"""Bits, bytes, owners and inputs of other people's modules: each kind as a small module in our own words."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from meliuscli.cli.count import count
from meliuscli.counting.counts import Op
from meliuscli.counting.foreign import Example, OwnCount, count_own, load_example, parse_word
from meliuscli.errors import BadInputError, FailedError
from meliuscli.training.optimizer import flatten_parameters

SHAPE = (8, 8, 8)
MACS = 8 * 8 * 9 * 64
"""Of a padded 3x3 convolution from eight channels to eight on 8x8 pixels; it has 576 weights."""


def sign(x: Tensor) -> Tensor:
    return torch.where(x >= 0, 1.0, -1.0)


def ternary(x: Tensor) -> Tensor:
    """In thirds, so that each value is there."""
    return torch.where(x > x.quantile(0.66), 1.0, torch.where(x < x.quantile(0.33), -1.0, 0.0))


def steps(x: Tensor, bits: int) -> Tensor:
    """Rounded to ``2**bits - 1`` steps from the least value to the largest."""
    low, high = x.min(), x.max()
    return ((x - low) / (high - low) * (2**bits - 1)).round() / (2**bits - 1) * 2 - 1


class Made(nn.Module):
    """Of tensors and modules, and a function of these and of the input."""

    def __init__(self, forward: Callable[..., Tensor], **parts: nn.Module | Tensor) -> None:
        super().__init__()
        self.function = forward
        for name, part in parts.items():
            self.register_module(name, part) if isinstance(part, nn.Module) else self.register_buffer(name, part)
            if isinstance(part, nn.Parameter):
                del self._buffers[name]
                setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


QUANTIZERS: dict[int, Callable[[Tensor], Tensor]] = {
    32: lambda x: x,
    1: sign,
    2: lambda x: steps(x, 2),
    4: lambda x: steps(x, 4),
    8: lambda x: steps(x, 8),
}


def conv() -> nn.Conv2d:
    return nn.Conv2d(8, 8, 3, padding=1, bias=False)


class Layer(nn.Conv2d):
    """A convolution that quantizes both of its operands."""

    weights: Callable[[Tensor], Tensor] = staticmethod(sign)
    inputs: Callable[[Tensor], Tensor] = staticmethod(sign)

    def __init__(self) -> None:
        super().__init__(8, 8, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(type(self).inputs(x), type(self).weights(self.weight), None)


def layer(
    weights: Callable[[Tensor], Tensor], inputs: Callable[[Tensor], Tensor], name: str = "Layer", **stated: object
) -> nn.Sequential:
    made = type(name, (Layer,), {"weights": staticmethod(weights), "inputs": staticmethod(inputs)})()
    for key, value in stated.items():
        setattr(made, key, value)
    return nn.Sequential(made)


def counted(module: nn.Module, shape: tuple[int, ...] = SHAPE, words: tuple[str, ...] = ()) -> OwnCount:
    return count_own(module, shape, words)


def bits_of(own: OwnCount, row: str = "0") -> tuple[int, int]:
    (ruling,) = own.rulings[row]
    return ruling.bits


def doubts(own: OwnCount) -> list[str]:
    return [verdict.verdict for verdict in own.verdicts if verdict.doubt]


# Values are evidence


@pytest.mark.parametrize(
    ("weights", "inputs", "bits"),
    [
        (sign, sign, (1, 1)),
        (sign, lambda x: (x > 0).float(), (1, 1)),
        (lambda w: sign(w) * w.abs().mean((1, 2, 3), keepdim=True), sign, (1, 1)),
        (lambda w: sign(w) * w[:1].abs().mean((0, 2, 3), keepdim=True), sign, (1, 1)),  # a scale an input channel
        (sign, lambda x: 0.37 * sign(x), (1, 1)),
        (sign, lambda x: x + (0.37 * sign(x) - x).detach(), (1, 1)),
        (sign, lambda x: (x > 2) * 0.37, (1, 1)),
        (sign, lambda x: sign(x) * (x.abs() > 0.5), (1, 2)),
        (sign, lambda x: (x > 0.5).float() - (x < -0.5).float(), (1, 2)),
        (lambda w: w + (sign(w) - w).detach(), sign, (1, 1)),
        (ternary, lambda x: steps(x, 8), (2, 8)),
        (lambda w: torch.where(w > 0.04, 0.3, torch.where(w < -0.04, -0.5, 0.0)), sign, (2, 1)),  # two scales
        (sign, lambda x: steps(x.clamp(0, 1), 2), (1, 2)),
        (lambda w: steps(w, 4), lambda x: steps(x, 4), (4, 4)),
        (lambda w: steps(w, 8), lambda x: x, (8, 32)),
        (sign, lambda x: x, (1, 32)),
        (lambda w: w, sign, (32, 32)),
        (lambda w: w, lambda x: x, (32, 32)),
    ],
)
def test_values_decide_where_nothing_is_stated(
    weights: Callable[[Tensor], Tensor], inputs: Callable[[Tensor], Tensor], bits: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    own = counted(layer(weights, inputs))
    assert bits_of(own) == bits
    assert own.count.total.weights == ((bits[0], 576),)
    assert own.count.total.size_bytes == 576 * bits[0] // 8
    assert not doubts(own)
    assert own.dearest == own.count


def test_activations_of_eight_bits_with_a_scale_a_token() -> None:
    class BitLinear(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            x = F.layer_norm(x.squeeze(1), x.shape[-1:])
            scale = 127 / x.abs().amax(-1, keepdim=True)
            return F.linear((x * scale).round() / scale, ternary(self.weight))

    own = counted(nn.Sequential(BitLinear(64, 32, bias=False)), (1, 16, 64))
    assert bits_of(own) == (2, 8)
    assert own.count.total.size_bytes == 512


def test_signs_that_are_pruned_are_ternary_and_several_bases_of_one_tensor_are_several() -> None:
    def bases(m: nn.Module, x: Tensor) -> Tensor:
        w = m.conv.weight
        twice = F.conv2d(sign(x), sign(w)) + F.conv2d(sign(x), sign(w))
        return twice + F.conv2d(sign(x), sign(w - w.mean()))  # type: ignore[operator, arg-type]

    assert counted(Made(bases, conv=conv())).count.total.weights == ((1, 2 * 576),)
    pruned = conv()
    prune.random_unstructured(pruned, "weight", 0.5)
    own = counted(Made(lambda m, x: F.conv2d(sign(x), sign(m.conv.weight_orig) * m.conv.weight_mask), conv=pruned))
    assert (bits_of(own, "conv"), own.count.total.weights) == ((2, 1), ((2, 576),))
    tied = Made(lambda m, x: F.linear(F.linear(x, sign(m.w)), sign(m.w).t()), w=nn.Parameter(torch.randn(16, 8)))
    assert counted(tied).count.total.weights == ((1, 16 * 8),)


def test_weights_with_a_scale_for_so_many_in_a_row() -> None:
    def in_groups(w: Tensor) -> Tensor:
        scale = (groups := w.view(32, 2, 32)).abs().amax(-1, keepdim=True) / 7
        return ((groups / scale).round() * scale).view_as(w)

    own = counted(
        Made(lambda m, x: F.linear(x, in_groups(m.linear.weight)), linear=nn.Linear(64, 32, False)), (1, 4, 64)
    )
    assert own.count.total.weights == ((4, 64 * 32),)


def test_few_weights_a_channel_of_three_values_are_not_two() -> None:
    own = counted(Made(lambda m, x: F.conv2d(x, ternary(m.w), groups=8), w=nn.Parameter(torch.randn(8, 1, 3, 3))))
    assert own.count.total.weights == ((2, 72),)


@pytest.mark.parametrize("fresh", [nn.init.dirac_, nn.init.zeros_, nn.init.ones_])
def test_fresh_weights_of_one_value_or_an_identity_are_no_evidence(fresh: Callable[[Tensor], Tensor]) -> None:
    made = conv()
    fresh(made.weight)
    assert counted(made).count.total.weights == ((32, 576),)


def test_zeros_that_pad_signs_before_they_are_unfolded_are_doubted() -> None:
    own = counted(Made(lambda m, x: sign(m.conv.weight).view(8, -1) @ F.unfold(sign(x), 3, padding=1), conv=conv()))
    assert (own.count.total.binary_macs, own.dearest.total.quantized_macs) == (MACS, MACS)
    assert len(doubts(own)) == 1


def test_a_cell_that_begins_with_zeros() -> None:
    def run(m: nn.Module, x: Tensor) -> Tensor:
        state = torch.zeros(1, 16)
        for step in x[0, 0]:
            state = torch.tanh(F.linear(sign(step[None]), sign(m.w)) + F.linear(sign(state), sign(m.u)))  # type: ignore[arg-type]
        return state

    cell = Made(run, w=nn.Parameter(torch.randn(16, 8)), u=nn.Parameter(torch.randn(16, 16)))
    total = counted(cell, (1, 8, 8)).count.total
    assert (total.binary_macs, total.weights) == (8 * (16 * 8 + 16 * 16), ((1, 16 * 24),))


def test_two_values_of_two_are_no_evidence() -> None:
    squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 2, 1), nn.ReLU(), nn.Conv2d(2, 8, 1))
    for module, shape in ((squeeze, SHAPE), (nn.Sequential(nn.Flatten(), nn.Linear(2, 16)), (2, 1, 1))):
        own = counted(module, shape)
        assert (own.recognised, own.verdicts) == ({}, ())


def test_thin_evidence_takes_the_dearer_reading() -> None:
    """Two of the four values of two bits occur."""
    for inputs in (
        lambda x: (3 * (0.1 * x).clamp(0, 1)).round() / 3,
        lambda x: (0.3 * x.clamp(-1, 1) + 0.5).round() - 0.5,
    ):
        own = counted(layer(sign, inputs))
        assert bits_of(own) == (1, 2)
        assert "thin" in own.recognised["0"]
        named = counted(layer(sign, inputs, "BinaryConv2d"))
        assert (bits_of(named), named.rulings["0"][0].dearer) == ((1, 1), (1, 2))
        assert doubts(named) == [
            "counts as binary, but its activations may take more than the two values that are seen"
        ]


def test_signs_of_a_network_that_was_not_trained_may_all_be_alike() -> None:
    same = layer(
        lambda w: sign(w.abs()) * w.abs().mean((1, 2, 3), keepdim=True), lambda x: sign(x.abs()), "HardBinaryConv"
    )
    own = counted(same)
    assert (own.count.total.binary_macs, own.count.total.binary_params, own.verdicts) == (MACS, 576, ())


def test_a_name_raises_the_question_and_the_values_answer_it() -> None:
    for name in ("QConv2d", "QuantConv2d"):
        own = counted(layer(lambda w: w, lambda x: x, name))
        assert (own.count.total.float_macs, own.verdicts) == (MACS, ())
    own = counted(layer(lambda w: w, sign, "BinaryConv2d"))  # binarized elsewhere, and not yet
    assert own.count.total.binary_macs == MACS
    assert doubts(own) == ["counts as binary, but its weights take more than two values"]
    assert own.dearest.total.float_macs == MACS
    assert own.dearest.total.size_bytes == 4 * 576


def test_a_binary_child_makes_no_float_sibling_binary() -> None:
    class BinaryConvBlock(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.binary, self.plain = layer(sign, sign)[0], conv()

        def forward(self, x: Tensor) -> Tensor:
            return self.binary(x) + self.plain(x)  # type: ignore[no-any-return]

    total = counted(nn.Sequential(BinaryConvBlock())).count.total
    assert (total.binary_macs, total.float_macs) == (MACS, MACS)


# What is stated


class Quantizer(nn.Module):
    """States its bits in one of the field's ways."""

    def __init__(self, number: int, /, **words: object) -> None:
        super().__init__()
        self._states = number
        for key, value in words.items():
            setattr(self, key, value)

    def forward(self, x: Tensor) -> Tensor:
        return sign(x) if self._states == 1 else steps(x, self._states)


class WithMethod(Quantizer):
    def bit_width(self) -> Tensor:
        self(torch.randn(8))  # as brevitas has it
        return torch.tensor(float(self._states))


@pytest.mark.parametrize("word", ["num_bits", "_num_bits", "bits", "bit", "nbits", "bitwidth", "bit_width", ""])
def test_quantizers_state_the_bits_of_what_they_return(word: str) -> None:
    def quantizer(bits: int) -> Quantizer:
        return Quantizer(bits, **{word: bits}) if word else WithMethod(bits)

    made = conv()
    parametrize.register_parametrization(made, "weight", quantizer(4))
    own = counted(nn.Sequential(quantizer(8), made))
    assert bits_of(own, "1") == (4, 8)
    assert "states" in own.recognised["1"]


class QType:
    def __init__(self, bits: int) -> None:
        self.bits = bits


@pytest.mark.parametrize(
    ("words", "bits"),
    [
        ({"w_bit": 2, "a_bit": 2}, (2, 2)),
        ({"weight_bits": 4, "activation_bits": 8}, (4, 8)),
        ({"bitW": 1, "bitA": 2}, (1, 2)),
        ({"num_bits_weight": 8, "num_bits": 8}, (8, 32)),
        ({"weight_qtype": QType(8), "activation_qtype": None}, (8, 32)),
        ({"weight_qtype": torch.qint8}, (8, 32)),
        ({"w_bits": "4", "a_bits": "fp16"}, (4, 32)),
        ({"weight_bit_width": torch.tensor(3.0)}, (3, 32)),
        ({"w_bits": 1.58, "a_bits": 8}, (2, 8)),
        ({"w_bits": 32, "a_bits": 32}, (32, 32)),
    ],
)
def test_layers_state_bits_under_the_names_of_the_field(words: dict[str, object], bits: tuple[int, int]) -> None:
    assert bits_of(counted(layer(lambda w: w, lambda x: x, **words))) == bits


def test_a_statement_that_the_values_deny_is_a_doubt() -> None:
    own = counted(layer(lambda w: w, sign, w_bit=1))
    assert own.count.total.binary_macs == MACS
    assert doubts(own) == ["counts as binary, but its weights take more than two values"]
    assert own.dearest.total.float_macs == MACS


# The user's word


@pytest.mark.parametrize(
    ("word", "bits"),
    [("0=1x1", (1, 1)), ("*=1x8", (1, 8)), ("0=1.58x8", (2, 8)), ("0=ternaryx8", (2, 8)), ("0=1x32", (1, 32))],
)
def test_the_users_word_goes_before_all_else(word: str, bits: tuple[int, int]) -> None:
    own = counted(nn.Sequential(conv()), words=(f"--bits {word}",))
    assert bits_of(own) == bits
    assert own.count.total.weights == ((bits[0], 576),)
    assert own.recognised["0"].endswith(f"by --bits {word.partition('=')[0]}")
    assert own.dearest == own.count


@pytest.mark.parametrize("text", ["0", "0=1", "0=0x1", "0=33x8", "=1x1", "0=axb"])
def test_a_word_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadInputError, match="not a pattern with bits"):
        parse_word(f"--bits {text}")


def test_products_without_weights_can_be_named_and_are_seen() -> None:
    class Product(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return a @ b.mT

    class Attention(nn.Module):
        def __init__(self, quantizer: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            self.mm, self.quantizer = Product(), quantizer

        def forward(self, x: Tensor) -> Tensor:
            x = self.quantizer(x.squeeze(1))
            return self.mm(x, x)  # type: ignore[no-any-return]

    def fused(m: nn.Module, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(sign(x), sign(x), x)

    for module, words in (
        (Attention(sign), ()),
        (Attention(lambda x: 0.3 * sign(x)), ()),
        (Attention(lambda x: x), ("mm*",)),
        (Made(fused), ()),
    ):
        assert counted(module, (1, 16, 32), words).count.total.binary_macs == 16 * 16 * 32
    with pytest.raises(BadInputError, match="no module of the network has such a name") as caught:
        counted(Attention(sign), (1, 16, 32), ("--bits m.m=1x8",))
    assert caught.value.hint == "nearest: mm"


# Bytes that are there


class Held(nn.Module):
    """Weights in a buffer, made into ones to multiply with by ``unpacked``."""

    def __init__(self, held: Tensor, unpacked: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.register_buffer("held", held)
        self.register_buffer("scale", torch.rand(8, 1, 1, 1))
        self.unpacked = unpacked

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.unpacked(self.held) * self.scale, padding=1)


@pytest.mark.parametrize(
    ("held", "unpacked", "bits", "bytes_"),
    [
        (sign(torch.randn(8, 8, 3, 3)), lambda w: w, 1, 72),
        (torch.randn(8, 8, 3, 3) > 0, lambda w: torch.where(w, 1.0, -1.0), 1, 72),
        (torch.randint(-127, 128, (8, 8, 3, 3), dtype=torch.int8), lambda w: w.float(), 8, 576),
        (
            torch.randint(0, 256, (72,), dtype=torch.uint8),
            lambda w: (((w[:, None] >> torch.arange(8)) & 1) * 2.0 - 1).view(8, 8, 3, 3),
            1,
            72,
        ),
        (
            torch.randint(0, 2**31 - 1, (72,), dtype=torch.int32),
            lambda w: (((w[:, None] >> (4 * torch.arange(8))) & 15) - 8.0).view(8, 8, 3, 3),
            4,
            288,
        ),
        (torch.randn(8, 8, 3, 3), lambda w: w, 32, 2304),
    ],
)
def test_buffers_that_hold_weights_count_at_their_bits(
    held: Tensor, unpacked: Callable[[Tensor], Tensor], bits: int, bytes_: int
) -> None:
    own = counted(nn.Sequential(Held(held, unpacked)))
    assert (own.count.total.weights, own.count.total.size_bytes) == (((bits, 576),), bytes_)
    assert "its weights are in buffers, which count" in [verdict.verdict for verdict in own.verdicts]


@pytest.mark.parametrize(("dtype", "bits"), [(torch.half, 16), (torch.bfloat16, 16), (torch.double, 64)])
def test_float_types_have_their_size(dtype: torch.dtype, bits: int) -> None:
    own = counted(nn.Sequential(conv(), nn.BatchNorm2d(8)).to(dtype))
    assert own.count.total.weights == ((32, 576 + 16),)
    assert own.count.total.float_params == 576 + 16
    assert own.count.total.size_bytes == (576 + 16) * bits // 8
    assert own.count.total.float_macs == MACS


def test_complex_weights_are_two_and_complex_macs_four() -> None:
    made = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False, dtype=torch.cfloat))
    own = counted(made)
    assert (own.count.total.float_macs, own.count.total.params) == (4 * MACS, 2 * 576)
    pairs = Made(
        lambda m, x: F.conv2d(torch.complex(x, x), torch.view_as_complex(m.w), padding=1),  # type: ignore[arg-type]
        w=nn.Parameter(torch.randn(8, 8, 3, 3, 2)),
    )
    assert counted(pairs).count.total == own.count.total
    linear = counted(nn.Sequential(nn.Linear(8, 4, bias=False, dtype=torch.cfloat)))
    assert linear.count.total.float_macs == 4 * 64 * 8 * 4


@pytest.mark.filterwarnings("ignore")
def test_quantized_modules_of_torch() -> None:
    ao = torch.ao.quantization
    made = nn.Sequential(ao.QuantStub(), nn.Conv2d(8, 8, 3, padding=1), ao.DeQuantStub()).eval()
    made.qconfig = ao.get_default_qconfig(torch.backends.quantized.engine)
    ao.prepare(made, inplace=True)
    made(torch.randn(1, *SHAPE))
    static = counted(ao.convert(made))
    assert static.count.total.quantized_macs == MACS
    assert (static.count.total.weights, static.count.total.size_bytes) == (((8, 576), (32, 8)), 576 + 32)
    assert not doubts(static)
    dynamic = ao.quantize_dynamic(nn.Sequential(nn.Flatten(), nn.Linear(512, 16)).eval(), {nn.Linear}, torch.qint8)
    own = counted(dynamic)
    assert (own.count.total.quantized_macs, own.count.total.size_bytes) == (512 * 16, 512 * 16 + 64)
    half = ao.quantize_dynamic(nn.Sequential(nn.Flatten(), nn.Linear(512, 16)).eval(), {nn.Linear}, torch.float16)
    total = counted(half).count.total
    assert (total.float_params, total.size_bytes) == (512 * 16 + 16, 2 * 512 * 16 + 4 * 16)
    lstm = ao.quantize_dynamic(nn.Sequential(nn.LSTM(8, 16, batch_first=True)), {nn.LSTM}, torch.qint8)
    own = counted(lstm, (4, 8))
    assert own.count.total.macs == ((Op("linear", 8, 8), 4 * 64 * (8 + 16)),)
    assert own.count.total.weights == ((8, 64 * (8 + 16)), (32, 2 * 64))


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_sparse_weights_take_their_values_and_their_places(layout: torch.layout) -> None:
    class Sparse(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            dense = torch.zeros(16, 8)
            dense[::2, ::2] = 1.5
            self.weight = nn.Parameter(dense.to_sparse(layout=layout))

        def forward(self, x: Tensor) -> Tensor:
            return torch.sparse.mm(self.weight, x.flatten(1).view(8, 64))

    own = counted(Sparse())
    assert (own.count.total.float_macs, own.count.total.params) == (32 * 64, 32)
    assert own.count.total.size_bytes == 32 * 4 + 8 * (2 * 32 if layout == torch.sparse_coo else 32 + 17)


@pytest.mark.filterwarnings("ignore:Sparse")
def test_blocks_of_a_sparse_weight() -> None:
    dense = torch.zeros(8, 32)
    dense[4:, :16] = 1.5
    weight = nn.Parameter(dense.to_sparse_bsr((4, 4)))
    own = counted(Made(lambda m, x: F.linear(x[0, 0], m.w), w=weight), (1, 16, 32))  # type: ignore[arg-type]
    assert (own.count.total.float_macs, own.count.total.params) == (16 * 64, 64)
    assert own.count.total.size_bytes == 64 * 4 + 8 * (3 + 4)


def test_tied_weights_count_once_at_the_bits_of_their_product() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.head = nn.Embedding(100, 32), nn.Linear(32, 100, bias=False)
            self.head.weight = self.embedding.weight

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(self.embedding(ids))  # type: ignore[no-any-return]

    own = count_own(Tied(), Example.parse(["ids=int64:1x16"]))
    assert (own.count.total.linear_macs, own.count.total.params) == (16 * 32 * 100, 3200)
    assert [row.name for row in own.count.layers if row.macs] == ["head"]


def test_weights_that_are_views_of_one_long_tensor_are_told_apart() -> None:
    module = nn.Sequential(layer(sign, sign)[0], conv(), nn.BatchNorm2d(8))
    before = counted(module)
    flatten_parameters(module)
    assert counted(module) == before
    assert before.count.total.weights == ((1, 576), (32, 576 + 16))


# Who owns a MAC


class Borrowing(nn.Module):
    """Multiplies with weights of all kinds that are not its own, and with some that are."""

    def __init__(self) -> None:
        super().__init__()
        self.called, self.borrowed = conv(), conv()
        self.gates = nn.ParameterList([nn.Parameter(torch.randn(8, 4))])
        self.root = nn.Parameter(torch.randn(8, 8, 1, 1))
        self.normed = parametrizations.weight_norm(conv())
        self.pruned = conv()
        prune.l1_unstructured(self.pruned, "weight", 0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(self.called.forward(x), self.borrowed.weight * self.root.mean(), padding=1)
        x = F.conv2d(self.pruned(self.normed(x)), self.root)
        return torch.einsum("bchw,cd->bdhw", x, self.gates[0])


def test_macs_go_to_the_layer_whose_weights_they_are() -> None:
    own = counted(Borrowing())
    rows = {row.name: (sum(n for _, n in row.macs), row.params) for row in own.count.layers}
    assert rows == {
        "(Borrowing)": (8 * 8 * 64, 64),
        "called": (MACS, 576),
        "borrowed": (MACS, 576),
        "gates": (8 * 4 * 64, 32),
        "normed": (MACS, 576 + 8),
        "pruned": (MACS, 576),
    }
    assert own.verdicts == ()
    assert own.count.total.output == (4, 8, 8)


def test_a_scale_of_ones_own_does_not_make_the_weights_ones_own() -> None:
    module = Made(
        lambda m, x: F.conv2d(sign(x), torch.where(m.bits, m.scale, -m.scale), padding=1),  # type: ignore[call-overload]
        bits=torch.rand(8, 8, 3, 3) > 0.5,
        scale=nn.Parameter(torch.rand(8, 1, 1, 1) + 0.5),
    )
    own = counted(module)
    assert (own.count.total.binary_macs, own.count.total.weights) == (MACS, ((1, 576), (32, 8)))


def test_the_output_of_the_total_is_the_networks() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fixed = conv(), torch.randn(4, 8, 3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(self.conv(x), self.fixed)

    own = counted(Last())
    assert own.count.total.output == (4, 6, 6)
    assert own.count.total.params == 576  # what is in no state dict is in no file
    assert own.count.total.float_macs == MACS + 4 * 8 * 9 * 36


# Inputs as they are


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.linear = nn.Embedding(10, 4), nn.Linear(4, 2, bias=False)

    def forward(self, ids: Tensor, *, mask: Tensor) -> Tensor:
        return self.linear(self.embedding(ids)) * mask[..., None]  # type: ignore[no-any-return]


class Listed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(2, 2, 1, bias=False), nn.Conv2d(4, 2, 1, bias=False)])

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        return [one(x) for one, x in zip(self.convs, maps, strict=True)]


@pytest.mark.parametrize(
    ("module", "texts", "macs"),
    [
        (nn.Conv3d(3, 4, 3, padding=1, bias=False), ["3x4x8x8"], 3 * 4 * 27 * 256),
        (nn.Conv1d(1, 8, 80, stride=4, bias=False), ["1x400"], 8 * 80 * 81),
        (Two(), ["ids=int64:1x16", "mask=1x16"], 16 * 8),
        (Two(), ["int64:1x16", "mask=1x16"], 16 * 8),
        (Listed(), ["2x8x8", "4x4x4"], 2 * 2 * 64 + 4 * 2 * 16),
    ],
)
def test_inputs_of_all_kinds(module: nn.Module, texts: list[str], macs: int) -> None:
    assert count_own(module, Example.parse(texts)).count.total.float_macs == macs


@pytest.mark.parametrize("text", ["3xx8", "ids=", "int65:1x8", "randn:1x8", "3x0x3", "1 x 8"])
def test_an_input_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadInputError, match="not an input shape"):
        Example.parse([text])


FILE = """
import torch
from torch import nn
class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1, bias=False)
    def forward(self, a, b): return self.conv(a) + b
def arguments(): return Two(), (torch.randn(1, 8, 8, 8), torch.randn(1, 8, 8, 8))
def keywords(): return Two(), {"a": torch.randn(1, 8, 8, 8), "b": torch.zeros(())}
class Fresh(nn.Conv2d):
    def forward(self, x): return nn.functional.conv2d(torch.where(x >= 0, 1.0, -1.0), self.weight, padding=1)
Fresh.__name__ = "BinaryConv2d"
def fresh(): return nn.Sequential(Fresh(8, 8, 3, bias=False))
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(FILE)
    return tmp_path / "net.py"


@pytest.mark.parametrize("name", ["arguments", "keywords"])
def test_a_factory_may_return_example_inputs(file: Path, name: str) -> None:
    module, inputs = load_example(f"{file}:{name}")
    own = count_own(module, Example(given=inputs))
    assert (own.count.total.float_macs, own.input_shape) == (MACS, (8, 8, 8))
    with pytest.raises(BadInputError, match="cannot take an input of 8x8x8") as caught:
        counted(module)
    assert "--input ids=int64:1x128" in str(caught.value.hint)


# Doubts


@torch.library.custom_op("meliuscli_tests::opaque", mutates_args=())
def opaque(x: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(x, weight)


class Opaque(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return opaque(x, self.weight)  # type: ignore[no-any-return]


def test_an_operation_that_nobody_knows_is_a_doubt_until_it_has_a_formula() -> None:
    own = counted(nn.Sequential(nn.Identity(), Opaque()), (8, 8, 8))
    assert [verdict.what for verdict in own.verdicts if verdict.doubt] == ["meliuscli_tests::opaque"]
    registry = torch.utils.flop_counter.flop_registry
    torch.utils.flop_counter.register_flop_formula(torch.ops.meliuscli_tests.opaque)(
        lambda x, weight, out_shape=None, **_: 2 * x[0] * weight[0] * weight[1] * x[2] * x[3]
    )
    try:
        own = counted(nn.Sequential(nn.Identity(), Opaque()), (8, 8, 8))
    finally:
        del registry[torch.ops.meliuscli_tests.opaque]
    assert (own.count.total.float_macs, own.verdicts) == (4 * 8 * 64, ())


def test_operations_without_multiplications_raise_no_doubt() -> None:
    class Quiet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(8, 8, 1)
            self.acts = nn.Sequential(nn.Hardswish(True), nn.Mish(True), nn.Threshold(0.0, 0.0, True), nn.RReLU())

        def forward(self, x: Tensor) -> Tensor:
            x = F.logsigmoid(self.acts(self.conv(x))).mT.logcumsumexp(1)
            grid = F.affine_grid(torch.eye(2, 3)[None], list(x.shape), align_corners=False)
            x = F.gumbel_softmax(F.grid_sample(x, grid, align_corners=False), dim=1)
            return torch._foreach_mul([x], [x])[0] + x.unique().sum()

    own = counted(nn.Sequential(nn.DataParallel(Quiet())))
    assert (own.count.total.float_macs, own.verdicts) == (8 * 8 * 64, ())


def test_operations_that_multiply_without_a_formula_are_doubted() -> None:
    class Fourier(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.fft.rfft2(x).abs()

    assert doubts(counted(Fourier()))


def test_max_ops_is_held_against_the_doubts_too(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(
        FailedError, match=r"36,864 OPs \(36.864k\), were the doubts true, are more than --max-ops 1,000"
    ):
        count(f"{file}:fresh", input_=["8x8x8"], max_ops="1000", fmt="json")
    value = json.loads(capsys.readouterr().out)
    assert value["total"]["binary_macs"] == MACS
    assert value["doubts"] == ["doubt: BinaryConv2d in 0: counts as binary, but its weights take more than two values"]
    (layer_,) = value["layers"]
    assert (layer_["name"], layer_["bits"], layer_["dearer"]) == ("0", "1x1", "32x1")
    assert layer_["doubts"] == ["counts as binary, but its weights take more than two values"]
    count(f"{file}:fresh", input_=["8x8x8"], max_ops="1000", bits=["0=1x1"], fmt="json")
    assert json.loads(capsys.readouterr().out)["doubts"] == []


# One network in three styles

KINDS = {"float": (32, 32), "binary": (1, 1), "1x2": (1, 2), "2x2": (2, 2), "4-bit": (4, 4), "ternary": (2, 8)}


def operands(kind: str) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    weight_bits, activation_bits = KINDS[kind]
    return ternary if kind == "ternary" else QUANTIZERS[weight_bits], QUANTIZERS[activation_bits]


class Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def own_class(kinds: list[str], widths: list[int]) -> nn.Module:
    def forward(self: nn.Conv2d, x: Tensor) -> Tensor:
        weights, inputs = operands(self.kind)  # type: ignore[arg-type]
        return self._conv_forward(inputs(x), weights(self.weight), None)

    cls = type("Mine", (nn.Conv2d,), {"forward": forward})
    layers = [cls(a, b, 3, padding=1, bias=False) for a, b in pairwise(widths)]
    for one, kind in zip(layers, kinds, strict=True):
        one.kind = kind
    return nn.Sequential(*(part for one in layers for part in (one, nn.InstanceNorm2d(one.out_channels))))


def parametrized(kinds: list[str], widths: list[int]) -> nn.Module:
    parts: list[nn.Module] = []
    for kind, (a, b) in zip(kinds, pairwise(widths), strict=True):
        weights, inputs = operands(kind)
        made = nn.Conv2d(a, b, 3, padding=1, bias=False)
        parametrize.register_parametrization(made, "weight", Function(weights))
        parts += [Function(inputs), made, nn.InstanceNorm2d(b)]
    return nn.Sequential(*parts)


class Functional(nn.Module):
    def __init__(self, kinds: list[str], widths: list[int]) -> None:
        super().__init__()
        self.kinds = kinds
        self.kernels = nn.ParameterList(torch.randn(b, a, 3, 3) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        for kind, kernel in zip(self.kinds, self.kernels, strict=True):
            weights, inputs = operands(kind)
            x = F.instance_norm(F.conv2d(inputs(x), weights(kernel), padding=1))
        return x


@given(
    st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=3),
    st.lists(st.integers(4, 12), min_size=4, max_size=4),
)
@settings(max_examples=25, deadline=None)
def test_a_network_counts_the_same_in_three_styles_and_by_hand(kinds: list[str], channels: list[int]) -> None:
    torch.manual_seed(1)
    widths = channels[: len(kinds) + 1]
    macs: dict[tuple[int, int], int] = {}
    weights: dict[int, int] = {}
    for kind, (a, b) in zip(kinds, pairwise(widths), strict=True):
        macs[KINDS[kind]] = macs.get(KINDS[kind], 0) + a * b * 9 * 256
        weights[KINDS[kind][0]] = weights.get(KINDS[kind][0], 0) + a * b * 9
    for style in (own_class, parametrized, Functional):
        total = counted(style(kinds, widths), (widths[0], 16, 16)).count.total
        assert {(op.weight_bits, op.activation_bits): n for op, n in total.macs} == macs
        assert dict(total.weights) == weights
