"""What torch executes, seen from below autograd: products, whose weights they multiply, and what nobody knows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass

from meliuscli.counting.counts import FLOAT_BITS
from meliuscli.counting.foreign.bits import NOTHING, Evidence
from meliuscli.counting.foreign.formulas import Kind, Measure, doubt_of, has_formula, measured
from meliuscli.counting.foreign.statements import Stated, stated_bits
from meliuscli.counting.foreign.tensors import (
    held_by,
    key_of,
    shape_of,
    span_of,
    storage_of,
    stored_bits,
    tensors_in,
)
from meliuscli.counting.foreign.values import MANY, Seen, kernel_id, seen_values

_SIGNS = re.compile(r"(sign|sgn|copysign|heaviside|bernoulli|[gl][et])_?")
_ROUNDS = re.compile(r"(round|floor|ceil|trunc|floor_divide|remainder|fmod)_?|fake_quantize_\w*")
_SUMS = re.compile(r"sum|mean|\w*(avg_pool|softmax|layer_norm)\w*")
_KEEPS = re.compile(r"clone|_to_copy|cat|\w*pad\w*|max_pool\w*|im2col|index(_select)?|gather|dequantize|_unsafe_view")
"""Operations that make signs, that make other steps, that add up, and whose results have the values of their operand, in
other places."""


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


class Trace(NamedTuple):
    """Where the values of a storage come from: from the network's input, or of which of its tensors they are made alone;
    bits that a quantizer states; whether they are signs, or weights multiplied one by one, each with activations that
    several share; whether something made steps of them (None: nobody knows), or they are sums since then."""

    is_moving: bool = False
    roots: tuple[int, ...] = ()
    stated: Stated | None = None
    is_sign: bool = False
    is_spread: bool = False
    has_steps: bool | None = None


_NO_TRACE = Trace()


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Every operation below autograd, scripts and composite operations, by the module whose weights it multiplies, else
    by the module that is being called. Storages are followed: what is made of weights alone is weights."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.products: list[Product] = []
        self.unknown: dict[str, Counter[tuple[str, str]]] = {}
        self.shapes: dict[str, list[tuple[tuple[int, ...], tuple[int, ...]]]] = {}
        self.used: set[int] = set()
        self.tensors: dict[int, Tensor] = {}
        self.holders: dict[int, list[str]] = {}
        self.call: Any = None
        self.input: tuple[int, ...] = ()
        self.output: tuple[int, ...] = ()
        self._spans: dict[int, dict[int, range]] = {}
        self._traces: dict[int, Trace] = {}
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

    def feed(self, call: Any) -> None:
        """What the network is called with: whatever is made of it is no weight."""
        self.call, self.input = call, shape_of(call)
        self._traces.update((storage_of(tensor), Trace(is_moving=True)) for tensor in tensors_in(call))

    def _entering(self, name: str) -> Callable[[nn.Module, Any], None]:
        return lambda _module, _inputs: self._calls.append((row_of(name), len(self.products)))

    def _leaving(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def left(module: nn.Module, inputs: Any, output: Any) -> None:
            row, before = self._calls[-1]
            if row == row_of(name):  # not where one of its hooks has failed before ours
                self._calls.pop()
            self.shapes.setdefault(row_of(name), []).append((shape_of(inputs), shape_of(output)))
            self.output = shape_of(output)
            if before == len(self.products) and not self._is_asking:
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
        if not (with_macs := has_formula(func, args)):
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        measures = measured(func, args, kwargs, out, self._is_weight) if with_macs else []
        for measure in measures:
            self._add(measure, shape_of(out))
        self._follow(func, inputs, list(tensors_in(out)), any(measure.macs for measure in measures))
        if with_macs:
            return out
        if doubt := doubt_of(func) or self._sum_of_products(func, args):
            self.unknown.setdefault(self._calls[-1][0], Counter())[func._schema.name, doubt] += 1
        return out

    def _follow(self, func: Any, inputs: Sequence[Tensor], outputs: Sequence[Tensor], is_product: bool) -> None:
        keys, traces = [storage_of(t) for t in inputs], [self._trace(t) for t in inputs]
        roots = tuple(dict.fromkeys(root for tensor in inputs for root in self._roots_of(tensor)))
        self.used.update(roots)
        if any(tensor.is_complex() for tensor in (*inputs, *outputs)):
            self._complex.update(roots)
        name = func._schema.name.partition("::")[2]
        keeps = _KEEPS.fullmatch(name) is not None
        is_moving = any(trace.is_moving for trace in traces)
        trace = Trace(
            is_moving,
            () if is_moving else roots,
            next((trace.stated for trace in traces if trace.stated), None) if keeps else None,
            _SIGNS.fullmatch(name) is not None or _keeps_signs(func, name, keeps, traces),
            name == "mul" and self._is_spread(inputs, outputs),
            not is_product and _has_steps(func, name, outputs, traces),
        )
        for tensor in outputs:
            key = storage_of(tensor)
            if key in keys and not func._schema.is_mutable:
                continue
            if key not in keys and tensor.layout == torch.strided:
                self._alive.append(StorageWeakRef(tensor.untyped_storage()))  # type: ignore[no-untyped-call]
            self._traces[key] = trace

    def _is_spread(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> bool:
        size = sum(t.numel() for t in outputs)
        has_matrix = any(t.dim() > 1 and self._is_weight(t) and t.numel() > max(t.shape) for t in inputs)
        return has_matrix and any(self._trace(t).is_moving and t.numel() < size for t in inputs)

    def _sum_of_products(self, func: Any, args: Sequence[Any]) -> str | None:
        is_sum = func._schema.name == "aten::sum" and self._trace(args[0]).is_spread
        return "adds up weights multiplied one by one: may hide MACs (a product of matrices counts)" if is_sum else None

    def _trace(self, tensor: Tensor) -> Trace:
        return self._traces.get(storage_of(tensor), _NO_TRACE)

    def _roots_of(self, tensor: Tensor) -> tuple[int, ...]:
        """What of the network's tensors it is made of; several may be views of one long one."""
        spans = self._spans.get(storage_of(tensor))
        if spans is None:
            return self._trace(tensor).roots
        return tuple(spans) if len(spans) == 1 else tuple(k for k, s in spans.items() if span_of(tensor).start in s)

    def _is_weight(self, tensor: Any) -> bool:
        return isinstance(tensor, Tensor) and not self._trace(tensor).is_moving and bool(self._roots_of(tensor))

    def _add(self, measure: Measure, output: tuple[int, ...]) -> None:
        row, (weight, x) = self._calls[-1][0], measure.operands
        is_weight = self._is_weight(weight)
        roots = self._roots_of(weight) if weight is not None and is_weight else ()
        roots = tuple(sorted(roots, key=lambda root: _importance(self.tensors[root]), reverse=True))
        if roots and row not in self.holders[roots[0]]:
            row = self.holders[roots[0]][0]
        macs = measure.macs
        if weight is not None and x is not None:
            macs *= (1 + weight.is_complex()) * (1 + x.is_complex())
            # torch makes a complex convolution of three real ones; that of sums stands for two.
            split = bool(roots) and roots[0] in self._complex and not weight.is_complex()
            macs *= 2 if split and storage_of(weight) not in self._spans else 1
        evidence = tuple(
            NOTHING if t is None else self._evidence(t, r, w)
            for t, r, w in zip(measure.operands, measure.rows, (is_weight, False), strict=True)
        )
        kernel = 0 if weight is None or evidence[0].seen.bits == FLOAT_BITS else kernel_id(measure.rows[0])
        evidence = tuple(replace(e, stored=bits or e.stored) for e, bits in zip(evidence, measure.stored, strict=True))
        number = measure.number or (weight.numel() if weight is not None else 0)
        matrices = [root for root in roots if self.tensors[root].dim() > 1]
        if len(matrices) > 1 and sum(self.tensors[root].numel() for root in matrices) == number:  # joined, or stacked
            shares = [(self.holders[root][0], (root,), self.tensors[root].numel()) for root in matrices]
        else:
            shares = [(row, roots, number)]
        for row, roots, part in shares:
            of_part = macs * part // number if number else macs
            kernels = {kernel: part} if part else {}
            self.products.append(
                Product(row, measure.kind, of_part, output, roots, kernels, (evidence[0], evidence[1]))
            )

    def _evidence(self, tensor: Tensor, rows: Tensor | None, is_weight: bool) -> Evidence:
        trace, seen = self._trace(tensor), seen_values(rows, is_weight)
        if not is_weight and trace.has_steps is False and seen.levels > 1:  # sums take as many values as happens
            seen = Seen(MANY)
        is_sign = trace.is_sign and not (is_weight and seen.levels != 1)  # zeros among these are pruned ones
        return Evidence(trace.stated, stored_bits(tensor), seen, is_sign)


def _has_steps(func: Any, name: str, outputs: Sequence[Tensor], traces: Sequence[Trace]) -> bool | None:
    if _SUMS.fullmatch(name):
        return False
    makes_steps = _SIGNS.fullmatch(name) or _ROUNDS.fullmatch(name) or func._overloadname.endswith("_mode")
    if makes_steps or any(t.element_size() == 1 or not (t.is_floating_point() or t.is_complex()) for t in outputs):
        return True
    before = {trace.has_steps for trace in traces}
    return True if True in before else False if False in before else None


def _keeps_signs(func: Any, name: str, keeps: bool, traces: Sequence[Trace]) -> bool:
    """What is made of signs, scaled or passed on, is signs; of two kinds of them or in other steps it may not be."""
    number = sum(trace.is_sign for trace in traces)
    is_scaled = torch.Tag.pointwise in func.tags and not _ROUNDS.fullmatch(name)
    return number == len(traces) > 0 if keeps else number == 1 and is_scaled


def row_of(name: str) -> str:
    """A module's name; what makes a weight of another one (``torch.nn.utils.parametrize``), or packs it, is part of that
    layer."""
    return re.sub(r"(^|\.)(parametrizations\.|_packed_params|_all_weight_values).*", "", name)


def _importance(tensor: Tensor) -> tuple[int, bool]:
    return tensor.numel(), isinstance(tensor, nn.Parameter)
