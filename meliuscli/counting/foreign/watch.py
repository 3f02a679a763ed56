"""What torch executes, seen from below autograd: products, whose weights they multiply, and what nobody knows."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass

from meliuscli.counting.counts import FLOAT_BITS
from meliuscli.counting.foreign.bits import NOTHING, Evidence
from meliuscli.counting.foreign.formulas import Kind, Measure, doubt_of, formula_of
from meliuscli.counting.foreign.statements import Stated, stated_bits
from meliuscli.counting.foreign.tensors import (
    held_by,
    is_matrix,
    key_of,
    shape_of,
    span_of,
    storage_of,
    stored_bits,
    tensors_in,
)
from meliuscli.counting.foreign.traces import Trace, Values, made_by
from meliuscli.counting.foreign.values import OF_SUMS, Seen, kernel_id, seen_values


@dataclass(frozen=True, slots=True)
class Product:
    """MACs of one operation. ``row``: the module that they belong to. ``roots``: storages of what the weights are made
    of, the main one first; none where two activations are multiplied. ``kernels``: numbers of weights by what they are, for
    several may be made of one tensor. ``evidence``: of weights and activations."""

    row: str
    kind: Kind
    macs: int
    output: tuple[int, ...]
    roots: tuple[int, ...]
    kernels: Mapping[int, int]
    evidence: tuple[Evidence, Evidence] = (NOTHING, NOTHING)


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Every operation below autograd, scripts and composite operations, by the module whose weights it multiplies, else
    by the module that is being called. Storages are followed: what is made of weights alone is weights."""

    def __init__(self, module: nn.Module, call: Any) -> None:
        """``call``: what the network is called with: whatever is made of it is no weight."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.products: list[Product] = []
        self.unknown: dict[str, list[tuple[str, str]]] = {}
        self.shapes: dict[str, list[tuple[tuple[int, ...], tuple[int, ...]]]] = {}
        self.used: set[int] = set()
        self.tensors: dict[int, Tensor] = {}
        self.holders: dict[int, list[str]] = {}
        self.call, self.input = call, shape_of(call)
        self.output: tuple[int, ...] = ()
        self._spans: dict[int, dict[int, range]] = {}
        self._traces = {storage_of(tensor): Trace(is_moving=True) for tensor in tensors_in(call)}
        self._complex: set[int] = set()
        self._alive: list[StorageWeakRef] = []  # no other storage gets their addresses
        self._calls: list[tuple[str, int]] = [("", 0)]
        self._is_asking = False
        for name, part in module.named_modules():
            for tensor, _ in held_by(part):
                key = key_of(tensor)
                self.tensors.setdefault(key, tensor)
                self.holders.setdefault(key, []).append(row_of(name))
                self._spans.setdefault(storage_of(tensor), {})[key] = span_of(tensor)
            if not isinstance(part, torch.jit.ScriptModule):
                part.register_forward_pre_hook(self._entering(name))
                part.register_forward_hook(self._leaving(name), always_call=True)

    def _entering(self, name: str) -> Callable[[nn.Module, Any], None]:
        return lambda _module, _inputs: self._calls.append((row_of(name), len(self.products)))

    def _leaving(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def left(module: nn.Module, inputs: Any, output: Any) -> None:
            row, before = self._calls[-1]
            if row == row_of(name):  # not where one of its hooks has failed before ours
                self._calls.pop()
            self.shapes.setdefault(row_of(name), []).append((shape_of(inputs), shape_of(output)))
            self.output = shape_of(output)
            if not self._is_asking and not any(product.macs for product in self.products[before:]):
                self._is_asking = True  # brevitas' bit_width() calls the module
                self._take_its_word(module, output)
                self._is_asking = False

        return left

    def _take_its_word(self, module: nn.Module, output: Any) -> None:
        """What a module without products states is about what it returns: it is a quantizer."""
        says = stated_bits(module)
        for tensor in tensors_in(output):
            trace = self._trace(tensor)
            bits = says.both or (says.activation if trace.is_moving else says.weight)
            if bits:
                self._traces[storage_of(tensor)] = trace._replace(stated=Stated(bits, type(module).__name__))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not isinstance(func, torch._ops.OpOverload):
            return func(*args, **kwargs)
        inputs = list(tensors_in((args, kwargs)))
        if any(map(is_traceable_wrapper_subclass, inputs)):
            return NotImplemented  # it says what it is made of, and that is seen
        formula = formula_of(func, args, kwargs)
        if formula is None:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        measures = formula(args, out, self._is_weight) if formula else []
        for measure in measures:
            self._add(measure, shape_of(out))
        if formula is None and (doubt := doubt_of(func) or self._sum_of_products(func, args)):
            self.unknown.setdefault(self._calls[-1][0], []).append((func._schema.name, doubt))
        self._follow(func, inputs, list(tensors_in(out)), any(measure.macs for measure in measures))
        return out

    def _follow(self, func: Any, inputs: Sequence[Tensor], outputs: Sequence[Tensor], is_product: bool) -> None:
        keys = [storage_of(t) for t in inputs]
        roots = tuple(dict.fromkeys(root for tensor in inputs for root in self._roots_of(tensor)))
        self.used.update(roots)
        if any(tensor.is_complex() for tensor in (*inputs, *outputs)):
            self._complex.update(roots)
        trace = made_by(func, [*map(self._trace, inputs)], roots, outputs, is_product)
        if func._schema.name == "aten::mul" and self._is_spread(inputs, outputs):
            trace = trace._replace(is_spread=True)
        for tensor in outputs:
            key = storage_of(tensor)
            if key in keys and not func._schema.is_mutable:
                continue
            if key not in keys and tensor.layout == torch.strided:
                self._alive.append(StorageWeakRef(tensor.untyped_storage()))  # type: ignore[no-untyped-call]
            self._traces[key] = trace

    def _is_spread(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> bool:
        size = sum(t.numel() for t in outputs)
        has_matrix = any(is_matrix(t) and self._is_weight(t) for t in inputs)
        return has_matrix and any(self._trace(t).is_moving and t.numel() < size for t in inputs)

    def _sum_of_products(self, func: Any, args: Sequence[Any]) -> str | None:
        is_sum = func._schema.name == "aten::sum" and self._trace(args[0]).is_spread
        return "adds up weights multiplied one by one: may hide MACs (a product of matrices counts)" if is_sum else None

    def _trace(self, tensor: Tensor) -> Trace:
        return self._traces.get(storage_of(tensor), Trace())

    def _roots_of(self, tensor: Tensor) -> tuple[int, ...]:
        """What of the network's tensors it is made of; several may be views of one long one."""
        spans = self._spans.get(storage_of(tensor))
        if spans is None:
            return self._trace(tensor).roots
        return tuple(spans) if len(spans) == 1 else tuple(k for k, s in spans.items() if span_of(tensor).start in s)

    def _is_weight(self, tensor: Any) -> bool:
        return isinstance(tensor, Tensor) and not self._trace(tensor).is_moving and bool(self._roots_of(tensor))

    def _add(self, measure: Measure, output: tuple[int, ...]) -> None:
        weight = measure.operands[0]
        is_weight = weight is not None and self._is_weight(weight)
        roots = self._roots_of(weight) if weight is not None and is_weight else ()
        roots = tuple(sorted(roots, key=self._importance, reverse=True))
        factor = 1 << sum(t.is_complex() for t in measure.operands if t is not None)
        if weight is not None and not weight.is_complex() and not self._complex.isdisjoint(roots[:1]):
            # torch makes a complex convolution of three real ones; that of sums stands for two.
            factor *= 2 if storage_of(weight) not in self._spans else 1
        each = zip(measure.operands, measure.rows, measure.stored, (is_weight, False), strict=True)
        of_weight, of_activation = (self._evidence(*one) for one in each)
        kernel = 0 if of_weight.seen.bits == FLOAT_BITS else kernel_id(measure.rows[0])
        number = measure.number or (0 if weight is None else weight.numel())
        for row, of_row, part in self._shares(roots, number):
            macs = factor * measure.macs * part // number if number else measure.macs
            kernels = {kernel: part} if part else {}
            self.products.append(Product(row, measure.kind, macs, output, of_row, kernels, (of_weight, of_activation)))

    def _shares(self, roots: tuple[int, ...], number: int) -> list[tuple[str, tuple[int, ...], int]]:
        """Rows, what of their weights is multiplied, and numbers: the layer that is called goes first; weights of several
        that are joined go to theirs."""
        called = self._calls[-1][0]
        sizes = {root: self.tensors[root].numel() for root in roots if self.tensors[root].dim() > 1}
        is_joined = len(sizes) > 1 and sum(sizes.values()) == number
        shares = []
        for part, size in [((root,), size) for root, size in sizes.items()] if is_joined else [(roots, number)]:
            rows = self.holders[part[0]] if part else [called]
            shares.append((called if called in rows else rows[0], part, size))
        return shares

    def _importance(self, root: int) -> tuple[int, bool]:
        return self.tensors[root].numel(), isinstance(self.tensors[root], nn.Parameter)

    def _evidence(self, tensor: Tensor | None, rows: Tensor | None, stored: int | None, is_weight: bool) -> Evidence:
        if tensor is None:
            return NOTHING
        trace, seen = self._trace(tensor), seen_values(rows, is_weight)
        if not is_weight and trace.values == Values.SUMS and seen.levels > 1:
            seen = Seen(OF_SUMS)
        is_pruned = is_weight and seen.levels != 1  # zeros among the signs, not torch's sign of zero
        is_sign = trace.values == Values.SIGNS and not is_pruned
        return Evidence(trace.stated, stored or stored_bits(tensor), seen, is_sign)


def row_of(name: str) -> str:
    """A module's name; what makes a weight of another one (``torch.nn.utils.parametrize``), or packs it, is part of that
    layer."""
    return re.sub(r"(^|\.)(parametrizations\.|_packed_params|_all_weight_values).*", "", name)
