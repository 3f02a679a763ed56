"""The second road: the real torch module traced by fvcore, and the third: the same module run under torch's dispatcher, for
where fvcore's tracer is gone (it goes through TorchScript, which torch has deprecated). The only file that imports fvcore."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from torch import nn

from meliuscli.counting.batch_norm import stored_bn_values
from meliuscli.counting.counts import FLOAT_BITS, Count, NetworkCount, Op, Storage, merged, size_bytes
from meliuscli.nn.quantized import QuantConv2d

MAC_OPERATORS: dict[str, Literal["conv", "linear"]] = {
    "conv": "conv",
    "linear": "linear",
    "addmm": "linear",
    "matmul": "linear",
    "bmm": "linear",
    "einsum": "linear",
}
"""fvcore's names of what is made of MACs; it counts batch norm and pooling too, in other units."""

Macs = Mapping[str, Mapping[Literal["conv", "linear"], int]]
"""By module (its own, without its children's) and by kind of layer."""


Road = Literal["fvcore", "dispatcher"]
ROADS: Mapping[Road, str] = {
    "fvcore": "the fvcore trace of the torch module",
    "dispatcher": "a run of the torch module under torch's dispatcher (there is no fvcore tracer here)",
}
"""What sees the module run -> how a sentence calls it."""


@cache
def best_road() -> Road:
    """fvcore's tracer where it and torch's private part that it needs are there, else torch's dispatcher."""
    try:
        _fvcore_macs(nn.Linear(1, 1), (1, 1, 1))
    except (ImportError, AttributeError):
        return "dispatcher"
    return "fvcore"


@dataclass(frozen=True, slots=True)
class Difference:
    """Where the two roads disagree: a layer's name, the quantity, and what each road says."""

    name: str
    what: str
    analytic: int
    traced: int


def trace_module(
    module: nn.Module,
    input_shape: tuple[int, int, int],
    storage: Storage = Storage(),  # noqa: B008
    road: Road | None = None,
) -> NetworkCount:
    """Run one zero image of (channels, height, width) through ``module`` and count what ``road`` sees (``best_road`` for
    None).

    MACs come from there, module by module; bits are the module's own attributes; parameters are the module's own. Only
    layers with MACs or parameters appear, in order of registration. The module is left as it was."""
    macs = (_fvcore_macs if (road or best_road()) == "fvcore" else _dispatched_macs)(module, input_shape)
    rows: list[Count] = []
    counted: set[int] = set()
    for name, part in module.named_modules():
        own = [p for p in part.parameters(recurse=False) if id(p) not in counted]
        counted.update(map(id, own))
        if own or any(macs.get(name, {}).values()):
            rows.append(_row(name, part, macs.get(name, {}), own, storage))
    return NetworkCount(tuple(rows))


def _fvcore_macs(module: nn.Module, input_shape: tuple[int, int, int]) -> Macs:
    """Of one zero image, of the parameters' type and device. Whatever ``module`` raises comes through."""
    from fvcore.nn import FlopCountAnalysis

    logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
    like = next((p for p in module.parameters() if p.is_floating_point()), torch.empty(0))
    with torch.no_grad(), _left_as_it_was(module):
        module.eval()
        analysis: Any = FlopCountAnalysis(module, (like.new_zeros((1, *input_shape)),))
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        return {name: _by_kind(ops) for name, ops in _without_children(analysis.by_module_and_operator()).items()}


def _dispatched_macs(module: nn.Module, input_shape: tuple[int, int, int]) -> Macs:
    """As ``_fvcore_macs``, by torch's dispatcher: an operation belongs to the module whose weights it multiplies."""
    from meliuscli.counting.foreign.run import Example, watched

    _, watch = watched(module, Example.of(input_shape))
    found: dict[str, dict[Literal["conv", "linear"], int]] = {}
    for product in watch.products:
        kinds = found.setdefault(product.row, {})
        kinds[product.kind] = kinds.get(product.kind, 0) + product.macs
    return found


def _without_children(inclusive: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, int]]:
    """From counts that contain those of the modules below to counts of a module's own operations."""
    own = {name: {op: int(n) for op, n in ops.items()} for name, ops in inclusive.items()}
    for name, ops in inclusive.items():
        parent = name.rpartition(".")[0]
        if name and parent in own:
            for op, n in ops.items():
                own[parent][op] -= int(n)
    return {name: {op: n for op, n in ops.items() if n} for name, ops in own.items()}


def _by_kind(ops: Mapping[str, int]) -> dict[Literal["conv", "linear"], int]:
    kinds: dict[Literal["conv", "linear"], int] = {}
    for op, n in ops.items():
        if op in MAC_OPERATORS:
            kinds[MAC_OPERATORS[op]] = kinds.get(MAC_OPERATORS[op], 0) + n
    return kinds


@contextmanager
def _left_as_it_was(module: nn.Module) -> Iterator[None]:
    """Modes, buffers and torch's generator are put back."""
    modes = [(part, part.training) for part in module.modules()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in module.buffers()]
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        for part, training in modes:
            part.training = training
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


def _bits(module: nn.Module) -> tuple[int, int]:
    """The bits that our own layers state."""
    weight_bits, activation_bits = getattr(module, "weight_bits", None), getattr(module, "activation_bits", None)
    if isinstance(weight_bits, int) and isinstance(activation_bits, int):
        return weight_bits, activation_bits
    return FLOAT_BITS, FLOAT_BITS


def _row(
    name: str,
    part: nn.Module,
    macs: Mapping[Literal["conv", "linear"], int],
    own: list[nn.Parameter],
    storage: Storage,
) -> Count:
    bits = _bits(part)
    if isinstance(part, nn.modules.batchnorm._BatchNorm):
        weights = [(FLOAT_BITS, min(stored_bn_values(part), storage.bn_params) * part.num_features)]
        kind = "batch_norm"
    else:
        # Weights are matrices and kernels; vectors beside them are biases and scales, kept in float.
        bases = part.weight_bases if isinstance(part, QuantConv2d) else 1
        weights = [(bits[0], bases * p.numel()) if p.dim() > 1 and macs else (FLOAT_BITS, p.numel()) for p in own]
        op = Op("linear" if "linear" in macs else "conv", *bits)
        kind = f"{op.prefix}{op.layer}" if macs else "parameters"
    by_bits = merged(weights)
    by_op = merged((Op(layer, *bits), n) for layer, n in macs.items())
    return Count(name, kind, (), by_op, by_bits, size_bytes(by_bits, storage))


def differences(analytic: NetworkCount, traced: NetworkCount) -> list[Difference]:
    """Every layer and quantity in which two counts of one network differ; empty when they agree to the last unit."""
    ours = {row.name: row for row in analytic.layers if row.weights or row.macs}
    theirs = {row.name: row for row in traced.layers}
    nothing = Count("", "", ())
    found = []
    for name in [*ours, *(name for name in theirs if name not in ours)]:
        one, other = ours.get(name, nothing), theirs.get(name, nothing)
        for what in (
            *("binary_macs", "float_macs", "quantized_macs", "linear_macs"),
            *("params", "binary_params", "float_params", "size_bytes"),
        ):
            if getattr(one, what) != getattr(other, what):
                found.append(Difference(name, what, getattr(one, what), getattr(other, what)))
    return found
