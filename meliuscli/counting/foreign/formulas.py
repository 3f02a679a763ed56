"""How many MACs an operation of torch has, and of what: torch's own formulas, and ours for what these lack."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

from meliuscli.counting.foreign.tensors import is_matrix, num_stored, packed_matrices, tensors_in, type_bits

IsWeight = Callable[[Any], bool]
Kind = Literal["conv", "linear"]

_OF_TORCH = ("aten", "mkldnn", "quantized", "_quantized", "quantized_decomposed", "prim", "prims", "profiler")
_SAFE_TAGS = {torch.Tag.pointwise, torch.Tag.reduction, torch.Tag.view_copy}

_WITHOUT_FORMULA = {
    r"conv(?!ert)|mm(_|$)|linear(?!\dd)|matmul": "a product",
    r"(?<!fused_)(lstm|gru)|rnn|attention|encoder_layer": "a layer of many products",
    r"_fft_\w2\w": "a Fourier transform, whose MACs depend on how it is made",
    r"_[cp]dist_|_euclidean_dist": "distances of all pairs, which a product may be behind",
    r"linalg_(?!cross|check)|cholesky|triangular_solve|_spsolve|ormqr|geqrf": (
        "a decomposition or a solution of equations, whose MACs depend on the numbers"
    ),
}
"""Operations of torch that multiply and have no formula, in torch or here; no tag of torch's tells them from the others.
Patterns, for each backend has its own, and what they are."""


class Measure(NamedTuple):
    """Of one operation: in which kind of layer, MACs, the weights and the activations, each as it is and as rows that may
    have a scale each (None where they are not looked at). ``number`` of weights, and ``stored`` bits of weights and
    activations, where types and shapes do not say them."""

    kind: Kind
    macs: int
    operands: tuple[Tensor | None, Tensor | None] = (None, None)
    rows: tuple[Tensor | None, Tensor | None] = (None, None)
    number: int | None = None
    stored: tuple[int | None, int | None] = (None, None)


_WAY = "torch.utils.flop_counter.register_flop_formula, in your file, gives it a formula"

Formula = Callable[[Any, Any, IsWeight], list[Measure]]
"""Of the arguments, of the result, and of what tells which tensors are made of weights alone."""


def formula_of(func: Any, args: Sequence[Any], kwargs: Any) -> Formula | None:
    """MACs of an operation, where it has any: ours, else torch's."""
    namespace, name = _named(func)
    if "quantized" in (namespace, name[:9]):
        weights = [t for value in args[1:] for t in packed_matrices(value)]
        return partial(_quantized, name, weights) if weights else None
    if namespace == "aten" and name in _OURS:
        return _OURS[name]
    return partial(_by_torch, func, kwargs) if func._overloadpacket in flop_registry else None


def doubt_of(func: Any) -> str | None:
    """What an operation without a formula may be, where it may have MACs. Torch's tags tell, of its own ones what is
    known of them."""
    namespace, name = _named(func)
    if func.is_view or not _SAFE_TAGS.isdisjoint(func.tags):
        return None
    known = (what for names, what in _WITHOUT_FORMULA.items() if re.search(names, name))
    what = next(known, None) if namespace in _OF_TORCH else "not one of torch's"
    return what and f"{what}: may hide MACs ({_WAY})"


def _by_torch(func: Any, kwargs: Any, args: Any, out: Any, is_weight: IsWeight) -> list[Measure]:
    macs = flop_registry[func._overloadpacket](*args, **kwargs, out_val=out) // 2
    if func._schema.name == "aten::convolution":
        x, weight, is_transposed = args[0], args[1], args[6]
        return [Measure("conv", macs, (weight, x), (weight.movedim(int(is_transposed), 0), x.movedim(1, 0)))]
    kind: Kind = "conv" if "conv" in func._schema.name else "linear"
    given = [value for value in args if isinstance(value, Tensor)]
    pair = max(filter(is_weight, given), key=Tensor.numel, default=None), next(iter(given), None)
    return [Measure(kind, macs, pair, pair)]


def _named(func: Any) -> tuple[str, str]:
    namespace, _, name = func._schema.name.partition("::")
    return namespace, "_scaled_dot_product" if name.startswith("_scaled_dot_product") else name.rstrip("_")


def _two_factors(args: Any, out: Any, is_weight: IsWeight) -> list[Measure]:
    """The last two tensors; a third before them is added."""
    first, second = [value for value in args if isinstance(value, Tensor)][-2:]
    return [_product(first, second, is_weight)]


def _attention(args: Any, out: Any, is_weight: IsWeight) -> list[Measure]:
    query, key, value = args[:3]
    pairs = prod(query.shape[:-1]) * key.shape[-2]
    scores = Measure("linear", pairs * query.shape[-1], (key, query), (key.flatten(0, -2), query.flatten(0, -2)))
    return [scores, Measure("linear", pairs * value.shape[-1])]


def _recurrent(args: Any, out: Any, is_weight: IsWeight) -> list[Measure]:
    """Each matrix once a step: the first with the input, the others with what the steps give."""
    matrices = [w for w in (args[1] if isinstance(args[1], list | tuple) else args[1:3]) if w.dim() > 1]
    pairs = [(w, args[0] if w is matrices[0] else out[0]) for w in matrices]
    return [Measure("linear", prod(args[0].shape[:-1]) * w.numel(), (w, x), (w, x.flatten(0, 1))) for w, x in pairs]


def _bilinear(args: Any, out: Any, is_weight: IsWeight) -> list[Measure]:
    """``nn.Bilinear``: the weights with the first input, and what that gives with the second."""
    x, weight, y = args[:3]
    return [Measure("linear", x.shape[0] * (weight.numel() + out.shape[-1] * y.shape[-1]), (weight, x), (weight, x))]


def _time_convolution(args: Any, out: Any, is_weight: IsWeight) -> list[Measure]:
    x, weight = args[:2]
    macs = out.numel() * weight.numel() // weight.shape[-1]
    return [Measure("conv", macs, (weight, x), (weight.movedim(-1, 0), x.flatten(0, 1)))]


def _four_bits(args: Any, out: Any, is_weight: IsWeight) -> list[Measure]:
    x, weight = args[:2]
    number = x.shape[-1] * out.shape[-1]
    return [Measure("linear", x.numel() * out.shape[-1], (weight, x), (None, x), number, (4, None))]


def _lookup(args: Any, out: Any, is_weight: IsWeight) -> list[Measure]:
    """No MACs, but weights: a table (no list) of which what is computed takes rows."""
    table, places = args[0], [t for t in tensors_in(args[1:]) if not is_weight(t)]
    is_table = is_matrix(table) and is_weight(table) and places
    return [Measure("linear", 0, (table, None), (table, None))] if is_table else []


def _of_bits(args: Any, out: Any, is_weight: IsWeight) -> list[Measure]:
    """Packed signs, as XNOR-Net's authors and others multiply them by hand, or planes of bits: one MAC a bit."""
    factors = [value for value in args[:2] if isinstance(value, Tensor) and value.dim() > 1]
    weights = [factor for factor in factors if is_weight(factor)]
    if len(factors) < 2 or len(weights) != 1:
        return []
    bits = type_bits(out)
    x = factors[weights[0] is factors[0]]
    return [Measure("linear", bits * out.numel(), (weights[0], x), (None, None), bits * weights[0].numel(), (1, 1))]


_OURS: dict[str, Formula] = {
    # Torch's counter has some of these, and names no factors.
    **dict.fromkeys(("mm", "bmm", "mv", "dot", "vdot", "_int_mm", "_sparse_mm"), _two_factors),
    **dict.fromkeys(("addmm", "baddbmm", "addbmm", "addmv", "_addmm_activation", "_sparse_addmm"), _two_factors),
    "_scaled_dot_product": _attention,  # of each backend; torch's counter lacks the CPU's
    "mkldnn_rnn_layer": _recurrent,  # LSTM on a CPU
    "_cudnn_rnn": _recurrent,  # LSTM, GRU and RNN on a GPU
    # torchao's weights of eight bits on a CPU
    "_weight_int8pack_mm": lambda args, out, is_weight: [_product(args[0], args[1].mT, is_weight)],
    "_weight_int4pack_mm_for_cpu": _four_bits,  # torchao's weights of four bits, two a byte
    "_dyn_quant_matmul_4bit": _four_bits,  # the same on Arm
    "_trilinear": _bilinear,  # nn.Bilinear
    "conv_tbc": _time_convolution,  # fairseq's convolution over time
    **dict.fromkeys(("embedding", "_embedding_bag", "_embedding_bag_forward_only"), _lookup),
    **dict.fromkeys(("index", "index_select", "gather"), _lookup),
    **dict.fromkeys(("bitwise_xor", "logical_xor"), _of_bits),
    # of booleans it joins masks
    "bitwise_and": lambda args, out, is_weight: [] if out.dtype == torch.bool else _of_bits(args, out, is_weight),
}
"""Formulas of aten that torch's counter lacks, or gives without the operands."""


def _product(a: Tensor, b: Tensor, is_weight: IsWeight) -> Measure:
    if a.layout != torch.strided or b.layout != torch.strided:
        is_first = a.layout == torch.strided
        macs = num_stored(b) * a.numel() // a.shape[-1] if is_first else num_stored(a) * b.shape[-1]
        return Measure("linear", macs, (b, a) if is_weight(b) else (a, b))
    macs = a.numel() * (b.shape[-1] if b.dim() > 1 else 1)
    rows, columns = a.reshape(-1, a.shape[-1]), b.mT.reshape(-1, b.shape[-2]) if b.dim() > 1 else b[None]
    if is_weight(a) and (not is_weight(b) or a.numel() > b.numel()):
        return Measure("linear", macs, (a, b), (rows, columns))
    return Measure("linear", macs, (b, a), (columns, rows))


def _quantized(name: str, weights: Sequence[Tensor], args: Any, out: Any, is_weight: IsWeight) -> list[Measure]:
    x, weight = args[0], weights[0]
    if "conv" in name:
        positions = (x if "transpose" in name else out).shape
        return [Measure("conv", positions[0] * prod(positions[2:]) * weight.numel(), (weight, x))]
    is_dynamic = not x.is_quantized and weight.is_quantized
    macs = prod(x.shape[:-1]) * sum(map(Tensor.numel, weights))
    return [Measure("linear", macs, (weight, weight if is_dynamic else x))]
