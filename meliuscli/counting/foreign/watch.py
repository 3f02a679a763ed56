"""What torch executes, seen from below autograd: products, whose weights they multiply, and what nobody knows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from meliuscli.counting.counts import FLOAT_BITS
from meliuscli.counting.foreign.statements import Stated, stated_bits
from meliuscli.counting.foreign.values import Seen, seen_values

Kind = Literal["conv", "linear"]
Measure = tuple[Kind, int, Tensor | None, Tensor | None, int]
"""Kind of layer, MACs, the activations, the weights, and the dimension of the weights' output channels."""

_FACTOR = {
    **dict.fromkeys(("mm", "bmm", "mv", "dot", "vdot", "_int_mm", "_sparse_mm"), 0),
    **dict.fromkeys(("addmm", "baddbmm", "addbmm", "addmv", "_addmm_activation", "_sparse_addmm"), 1),
}
"""Products of tensors in aten, and which argument is the first factor; the next is the second."""

_KEEPS = re.compile(r"clone|_to_copy|cat|\w*pad\w*|max_pool\w*|im2col|index(_select)?|gather|dequantize|_unsafe_view")
"""Operations whose results have the values of their operand, in other places."""

_OF_TORCH = ("aten", "mkldnn", "quantized", "_quantized", "quantized_decomposed", "prim", "prims", "profiler")
_MULTIPLIES = re.compile(
    r"_?fft_(?!fftfreq|rfftfreq)|stft|linalg_(?!vector_norm|cross|diagonal|check)|cdist|pdist|conv(?!ert)|mm(_|$)"
    r"|linear(?!\dd)|matmul|(?<!fused_)(lstm|gru)|rnn|attention|cholesky|solve|svd|_lu_with|ormqr|matrix_exp|encoder_layer"
)
"""Torch's own operations that multiply; those for which neither ``_measure`` nor torch has a formula are doubted."""


@dataclass(frozen=True, slots=True)
class Product:
    """MACs of one operation. ``row``: the module that they belong to. ``roots``: storages of what the weights are made
    of, the main one first; none where two activations are multiplied. Pairs are of the weights and the activations."""

    row: str
    kind: Kind
    macs: int
    output: tuple[int, ...]
    roots: tuple[int, ...]
    num_weights: int
    seen: tuple[Seen, Seen]
    stated: tuple[Stated | None, Stated | None]
    stored: tuple[int | None, int | None]


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Every operation below autograd, scripts and composite operations, by the module whose weights it multiplies, else
    by the module that is being called. Storages are followed: what is made of weights alone is weights."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.products: list[Product] = []
        self.unknown: dict[str, Counter[str]] = {}
        self.shapes: dict[str, list[tuple[tuple[int, ...], tuple[int, ...]]]] = {}
        self.used: set[int] = set()
        self.tensors: dict[int, Tensor] = {}
        self.holders: dict[int, list[str]] = {}
        self.input: tuple[int, ...] = ()
        self.output: tuple[int, ...] = ()
        self._roots: dict[int, tuple[int, ...]] = {}
        self._moving: set[int] = set()
        self._stated: dict[int, Stated] = {}
        self._alive: list[StorageWeakRef] = []
        self._calls: list[tuple[str, int]] = [("", 0)]
        for name, part in module.named_modules():
            for tensor in [*part.parameters(recurse=False), *part.buffers(recurse=False)]:
                key = storage_of(tensor)
                self.tensors.setdefault(key, tensor)
                self.holders.setdefault(key, []).append(row_of(name))
                self._roots[key] = (key,)
            if not isinstance(part, torch.jit.ScriptModule):
                part.register_forward_pre_hook(self._entering(name))
                part.register_forward_hook(self._leaving(name), always_call=True)

    def feed(self, inputs: Any) -> None:
        """What the network is called with: whatever is made of it is no weight."""
        self._moving.update(map(storage_of, tensors_in(inputs)))

    def _entering(self, name: str) -> Callable[[nn.Module, Any], None]:
        return lambda _module, _inputs: self._calls.append((row_of(name), len(self.products)))

    def _leaving(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def left(module: nn.Module, inputs: Any, output: Any) -> None:
            row, before = self._calls[-1]
            if row == row_of(name):  # not where one of its hooks has failed before ours
                self._calls.pop()
            self.shapes.setdefault(row_of(name), []).append((_shape(inputs), _shape(output)))
            self.output = _shape(output)
            if before == len(self.products):
                self._take_its_word(module, output)

        return left

    def _take_its_word(self, module: nn.Module, output: Any) -> None:
        """What a module without products states is about what it returns: it is a quantizer."""
        says = stated_bits(module)
        for key in map(storage_of, tensors_in(output)):
            bits = says.both or (says.activation if key in self._moving else says.weight)
            if bits:
                self._stated[key] = Stated(bits, type(module).__name__)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not isinstance(func, torch._ops.OpOverload):
            return func(*args, **kwargs)
        namespace, _, name = func._schema.name.partition("::")
        has_formula = _has_formula(func, namespace, name, args)
        if not has_formula:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        inputs = [t for value in (*args, *kwargs.values()) for t in _tensors(value)]
        self._follow(func, name, inputs, _tensors(out))
        if has_formula:
            self._add(_measure(func, namespace, name, args, kwargs, out, self._is_weight), out)
        elif not _is_harmless(func, namespace, name):
            self.unknown.setdefault(self._calls[-1][0], Counter())[f"{namespace}::{name}"] += 1
        return out

    def _follow(self, func: Any, name: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        keys = [storage_of(t) for t in inputs]
        moving = any(key in self._moving for key in keys)
        roots = tuple(dict.fromkeys(root for key in keys for root in self._roots.get(key, ())))
        self.used.update(roots)
        says = next((self._stated[key] for key in keys if key in self._stated), None)
        for tensor in outputs:
            key = storage_of(tensor)
            if key in keys and not func._schema.is_mutable:
                continue
            if key not in keys and tensor.layout == torch.strided:
                self._alive.append(StorageWeakRef(tensor.untyped_storage()))  # no other storage gets its address
            self._stated.pop(key, None)
            if moving:
                self._moving.add(key)
            elif roots and key not in self.tensors:
                self._roots[key] = roots
            if says is not None and _KEEPS.fullmatch(name):
                self._stated[key] = says

    def _is_weight(self, tensor: Any) -> bool:
        key = storage_of(tensor) if isinstance(tensor, Tensor) else None
        return key in self._roots and key not in self._moving

    def _add(self, measure: Measure, out: Any) -> None:
        kind, macs, x, weight, dim = measure
        is_weight, row = self._is_weight(weight), self._calls[-1][0]
        roots = self._roots[storage_of(weight)] if weight is not None and is_weight else ()
        roots = tuple(sorted(roots, key=lambda root: _importance(self.tensors[root]), reverse=True))
        if roots and not any(row in self.holders[root] for root in roots):
            row = self.holders[roots[0]][0]
        pair = (weight, x)
        if weight is not None and x is not None and macs:
            macs *= (1 + weight.is_complex()) * (1 + x.is_complex())
            # torch makes a complex convolution of three real ones; that of sums stands for two.
            split = roots and self.tensors[roots[0]].is_complex() and not weight.is_complex()
            macs *= 2 if split and storage_of(weight) not in roots else 1
        seen = tuple(
            Seen() if t is None else seen_values(t, d, w)
            for t, d, w in zip(pair, (dim, 0 if kind == "linear" else 1), (is_weight, False), strict=True)
        )
        stated = tuple(None if t is None else self._stated.get(storage_of(t)) for t in pair)
        stored = tuple(None if t is None else stored_bits(t) for t in pair)
        size = 0 if weight is None else weight.numel()
        self.products.append(Product(row, kind, macs, _shape(out), roots, size, seen, stated, stored))  # type: ignore[arg-type]


def row_of(name: str) -> str:
    """A module's name; what makes a weight of another one (``torch.nn.utils.parametrize``) is part of that layer."""
    return re.sub(r"(^|\.)parametrizations\..*", "", name)


def storage_of(tensor: Tensor) -> int:
    """The same for all views of a tensor."""
    try:
        return tensor.untyped_storage()._cdata
    except (NotImplementedError, RuntimeError):  # a sparse one has none
        return id(tensor)


def stored_bits(tensor: Tensor) -> int | None:
    """Bits of an integer type; None for the floating-point types, whose values have to be looked at."""
    if tensor.is_floating_point() or tensor.is_complex():
        return None
    if tensor.dtype == torch.bool:
        return 1
    return min(FLOAT_BITS, tensor.element_size() * 8)


def _importance(tensor: Tensor) -> tuple[bool, int]:
    return isinstance(tensor, nn.Parameter), tensor.numel()


def _has_formula(func: Any, namespace: str, name: str, args: Sequence[Any]) -> bool:
    if namespace == "quantized":
        return len(args) > 1 and hasattr(args[1], "unpack")
    recurrent = name in ("mkldnn_rnn_layer", "_cudnn_rnn")
    known = name.rstrip("_") in _FACTOR or recurrent or name.startswith("_scaled_dot_product_")
    return (namespace == "aten" and known) or func._overloadpacket in flop_registry


def _measure(
    func: Any, namespace: str, name: str, args: Any, kwargs: Any, out: Any, is_weight: Callable[[Any], bool]
) -> Measure:
    if namespace == "quantized":
        return _quantized(name, args[0], args[1].unpack()[0], out)
    if name.rstrip("_") in _FACTOR and namespace == "aten":
        a, b = args[_FACTOR[name.rstrip("_")] :][:2]
        columns = b.shape[-1] if b.dim() > 1 else 1
        macs = _filled(a) * columns if b.layout == torch.strided else _filled(b) * a.numel() // a.shape[-1]
        if a.layout != torch.strided or b.layout != torch.strided:
            return "linear", macs, None, b if is_weight(b) else a, 0
        rows, columns_of = a.reshape(-1, a.shape[-1]), b.mT.reshape(-1, b.shape[-2]) if b.dim() > 1 else b[None]
        swapped = is_weight(a) and (not is_weight(b) or a.numel() > b.numel())
        return "linear", macs, columns_of if swapped else rows, rows if swapped else columns_of, 0
    if name.startswith("_scaled_dot_product_"):
        query, key, value = args[:3]
        return "linear", prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1]), None, None, 0
    if name in ("mkldnn_rnn_layer", "_cudnn_rnn"):  # each matrix once a step
        matrices = [w for w in (args[1] if isinstance(args[1], list | tuple) else args[1:3]) if w.dim() > 1]
        return "linear", prod(args[0].shape[:-1]) * sum(w.numel() for w in matrices), None, None, 0
    macs = flop_registry[func._overloadpacket](*args, **kwargs, out_val=out) // 2
    if namespace == "aten" and name.endswith(("convolution", "convolution_overrideable")):
        return "conv", macs, args[0], args[1], int(args[6])
    weights = [t for value in args for t in _tensors(value) if is_weight(t)]
    return "conv" if "conv" in name else "linear", macs, args[0], max(weights, key=Tensor.numel, default=None), 0


def _quantized(name: str, x: Tensor, weight: Tensor, out: Tensor) -> Measure:
    if "conv" in name:
        positions = (x if "transpose" in name else out).shape
        return "conv", positions[0] * prod(positions[2:]) * weight.numel(), x, weight, 0
    is_dynamic = not x.is_quantized and weight.is_quantized
    macs = prod(x.shape[:-1]) * weight.numel()
    return "linear", macs, weight if is_dynamic else x, weight, 0


def _filled(tensor: Tensor) -> int:
    return tensor.numel() if tensor.layout == torch.strided else int(tensor.values().numel())


def _is_harmless(func: Any, namespace: str, name: str) -> bool:
    """Has an operation without a formula no MACs? Torch's own tags say so of others' operations."""
    if namespace in _OF_TORCH:
        return _MULTIPLIES.search(name) is None
    return func.is_view or torch.Tag.pointwise in func.tags


def _tensors(value: Any) -> list[Tensor]:
    """Of an argument: itself, or those in a list."""
    if isinstance(value, Tensor):
        return [value]
    return [t for t in value if isinstance(t, Tensor)] if isinstance(value, list | tuple) else []


def _shape(value: Any) -> tuple[int, ...]:
    """Of the first tensor in a nested value; () where there is none."""
    return next((tuple(tensor.shape) for tensor in tensors_in(value)), ())


def tensors_in(value: Any, depth: int = 8) -> Iterator[Tensor]:
    """The tensors in whatever a module returns."""
    if isinstance(value, Tensor):
        yield value
    elif depth and not isinstance(value, nn.Module | type | str | bytes):
        held = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
        for part in held or getattr(value, "__dict__", {}).values():
            yield from tensors_in(part, depth - 1)
