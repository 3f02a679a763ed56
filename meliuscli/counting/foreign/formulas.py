"""How many MACs an operation of torch has, and of what: torch's own formulas, and ours for what these lack."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

Kind = Literal["conv", "linear"]

_FACTOR = {
    **dict.fromkeys(("mm", "bmm", "mv", "dot", "vdot", "_int_mm", "_sparse_mm"), 0),
    **dict.fromkeys(("addmm", "baddbmm", "addbmm", "addmv", "_addmm_activation", "_sparse_addmm"), 1),
}
"""Products of tensors in aten, and which argument is the first factor; the next is the second."""
_RECURRENT = ("mkldnn_rnn_layer", "_cudnn_rnn")

_OF_TORCH = ("aten", "mkldnn", "quantized", "_quantized", "quantized_decomposed", "prim", "prims", "profiler")
_MULTIPLIES = re.compile(
    r"_?fft_(?!fftfreq|rfftfreq)|stft|linalg_(?!vector_norm|cross|diagonal|check)|cdist|pdist|conv(?!ert)|mm(_|$)"
    r"|linear(?!\dd)|matmul|(?<!fused_)(lstm|gru)|rnn|attention|cholesky|solve|svd|_lu_with|ormqr|matrix_exp|encoder_layer"
)
"""Operations of torch that multiply; those of them without a formula are doubted."""


class Measure(NamedTuple):
    """Of one operation: in which kind of layer, MACs, the weights and the activations, each as it is and as rows that may
    have a scale each (None where they are not looked at)."""

    kind: Kind
    macs: int
    operands: tuple[Tensor | None, Tensor | None] = (None, None)
    rows: tuple[Tensor | None, Tensor | None] = (None, None)


def has_formula(func: Any, args: Sequence[Any]) -> bool:
    namespace, _, name = func._schema.name.partition("::")
    if name.startswith("quantized_") or namespace == "quantized":
        return any(map(_packed_matrices, args[1:]))
    known = name.rstrip("_") in _FACTOR or name in _RECURRENT or name.startswith("_scaled_dot_product_")
    return (namespace == "aten" and known) or func._overloadpacket in flop_registry


def is_harmless(func: Any) -> bool:
    """Has an operation without a formula no MACs? Of others' operations torch's tags say so."""
    namespace, _, name = func._schema.name.partition("::")
    if namespace in _OF_TORCH:
        return _MULTIPLIES.search(name) is None
    return func.is_view or torch.Tag.pointwise in func.tags


def measured(func: Any, args: Any, kwargs: Any, out: Any, is_weight: Callable[[Any], bool]) -> list[Measure]:
    """MACs of an operation that has a formula. ``is_weight`` tells which tensors are made of weights alone."""
    namespace, _, name = func._schema.name.partition("::")
    if name.startswith("quantized_") or namespace == "quantized":
        return [_quantized(name, args[0], [t for value in args[1:] for t in _packed_matrices(value)], out)]
    if namespace == "aten" and name.rstrip("_") in _FACTOR:
        first = _FACTOR[name.rstrip("_")]
        return [_product(args[first], args[first + 1], is_weight)]
    if name.startswith("_scaled_dot_product_"):
        query, key, value = args[:3]
        pairs = prod(query.shape[:-1]) * key.shape[-2]
        scores = Measure("linear", pairs * query.shape[-1], (key, query), (key.flatten(0, -2), query.flatten(0, -2)))
        return [scores, Measure("linear", pairs * value.shape[-1])]
    if name in _RECURRENT:  # each matrix once a step
        matrices = [w for w in (args[1] if isinstance(args[1], list | tuple) else args[1:3]) if w.dim() > 1]
        return [Measure("linear", prod(args[0].shape[:-1]) * sum(w.numel() for w in matrices))]
    macs = flop_registry[func._overloadpacket](*args, **kwargs, out_val=out) // 2
    kind: Kind = "conv" if "conv" in name else "linear"
    given = [value for value in args if isinstance(value, Tensor)]
    weight, x = max(filter(is_weight, given), key=Tensor.numel, default=None), next(iter(given), None)
    if kind == "conv" and namespace == "aten":
        channels = args[1].movedim(int(args[6]), 0)
        return [Measure(kind, macs, (args[1], args[0]), (channels, args[0].movedim(1, 0)))]
    return [Measure(kind, macs, (weight, x), (weight, x))]


def _product(a: Tensor, b: Tensor, is_weight: Callable[[Any], bool]) -> Measure:
    if a.layout != torch.strided or b.layout != torch.strided:
        is_first = a.layout == torch.strided
        macs = num_stored(b) * a.numel() // a.shape[-1] if is_first else num_stored(a) * b.shape[-1]
        return Measure("linear", macs, (b, a) if is_weight(b) else (a, b))
    macs = a.numel() * (b.shape[-1] if b.dim() > 1 else 1)
    rows, columns = a.reshape(-1, a.shape[-1]), b.mT.reshape(-1, b.shape[-2]) if b.dim() > 1 else b[None]
    if is_weight(a) and (not is_weight(b) or a.numel() > b.numel()):
        return Measure("linear", macs, (a, b), (rows, columns))
    return Measure("linear", macs, (b, a), (columns, rows))


def _quantized(name: str, x: Tensor, weights: Sequence[Tensor], out: Tensor) -> Measure:
    weight = weights[0]
    if "conv" in name:
        positions = (x if "transpose" in name else out).shape
        return Measure("conv", positions[0] * prod(positions[2:]) * weight.numel(), (weight, x))
    is_dynamic = not x.is_quantized and weight.is_quantized
    macs = prod(x.shape[:-1]) * sum(map(Tensor.numel, weights))
    return Measure("linear", macs, (weight, weight if is_dynamic else x))


def packed_in(value: Any, is_inside: bool = False) -> Iterator[Tensor]:
    """The weights and biases that ``torch.ao`` holds packed in an attribute or argument: at their bits, or half."""
    if isinstance(value, torch.ScriptObject) and hasattr(value, "unpack"):
        for tensor in value.unpack():
            if isinstance(tensor, Tensor) and (tensor.dim() > 1 or not is_inside):  # a cell has its biases beside them
                yield tensor if tensor.is_quantized or tensor.dim() < 2 else tensor.half()
    elif isinstance(value, torch.ScriptObject):
        yield from packed_in(value.__getstate__(), True)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from packed_in(part, is_inside)
    elif is_inside and isinstance(value, Tensor):
        yield value


def _packed_matrices(value: Any) -> list[Tensor]:
    return [tensor for tensor in packed_in(value) if tensor.dim() > 1]


def num_stored(tensor: Tensor) -> int:
    """Of the numbers that a tensor holds, sparse ones too."""
    if tensor.layout == torch.strided:
        return tensor.numel()
    return int((tensor._values() if tensor.layout == torch.sparse_coo else tensor.values()).numel())
