"""The two roads held against each other: what counts, and what is to be said about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from meliuscli.counting.foreign.bits import OwnBits, weight_of
from meliuscli.counting.foreign.values import value_notes
from meliuscli.counting.foreign.verdicts import Note
from meliuscli.counting.foreign.watch import WITH_MACS, Kind, Seen, Watch, is_harmless
from meliuscli.counting.traced import Trace

Macs = dict[str, dict[Kind, int]]
"""MACs by module (its own, without its children's) and kind."""


@dataclass(frozen=True, slots=True)
class Roads:
    """What each road saw, and the MACs by module that count: as executed, else as traced."""

    parts: Mapping[str, nn.Module]
    watch: Watch
    trace: Trace
    failure: str | None
    bits: OwnBits
    macs: Macs

    def seen(self, name: str) -> Seen:
        return self.watch.seen.get(name) or Seen()

    def total(self, name: str) -> int:
        return sum(self.macs.get(name, {}).values())

    def traced(self, name: str) -> int:
        return sum(self.trace.macs.get(name, {}).values())

    def is_opaque(self, name: str) -> bool:
        """Did something run in it that no road looks into?"""
        functions = any(op.startswith(_FOREIGN) for op in self.trace.unsupported.get(name, {}))
        return bool(self.seen(name).unknown) or (self.watch.blind is not None and functions)


_NOISE = 1e-3
_FOREIGN = ("prim::PythonOp", "prim::CallFunction")
"""How fvcore names autograd Functions and scripted functions."""


def compared(
    module: nn.Module, watch: Watch, trace: Trace, failure: str | None, bits: OwnBits
) -> tuple[Roads, list[Note]]:
    parts = dict(module.named_modules())
    macs: Macs = {}
    for name in parts:
        executed = watch.seen[name].macs if name in watch.seen else {}
        macs[name] = dict(executed or trace.macs.get(name, {}))
    roads = Roads(parts, watch, trace, failure, bits, macs)
    notes = [
        *_road_notes(roads),
        *_hidden_notes(roads),
        *value_notes(roads.parts, watch, bits),
        *_call_notes(roads),
        *_operation_notes(roads),
    ]
    return roads, notes


def _road_notes(roads: Roads) -> Iterator[Note]:
    """Where the roads differ by more than rounding (fvcore's einsum is one off)."""
    if roads.failure:
        yield Note("fvcore", f"cannot trace this network ({roads.failure}); MACs count as torch executes them", "")
    if roads.watch.blind:
        yield Note("torch", f"cannot be watched ({roads.watch.blind}); MACs count as fvcore sees them", "", doubt=True)
    if roads.failure or roads.watch.blind:
        return
    for name, part in roads.parts.items():
        traced, total = roads.traced(name), roads.total(name)
        what, more = type(part).__name__, abs(total - traced)
        if total and not traced:
            yield Note(what, "fvcore sees no MACs in it; {n} counted as torch executes them", name, total)
        elif more > _NOISE * total:
            fewer = "fewer" if traced < total else "more"
            yield Note(what, f"fvcore sees {{n}} MACs {fewer} than torch executes; those executed count", name, more)


def _hidden_notes(roads: Roads) -> Iterator[Note]:
    """Layers whose MACs no road sees are counted from their shapes, in place."""
    for name, part in roads.parts.items():
        weight, below = weight_of(part), f"{name}." if name else ""
        is_layer = isinstance(part, nn.modules.conv._ConvNd | nn.Linear) or name in roads.bits.reasons
        with_macs = any(roads.total(other) for other in roads.parts if other == name or other.startswith(below))
        if weight is None or with_macs or not roads.seen(name).shapes or not (is_layer or roads.is_opaque(name)):
            continue
        shapes = roads.seen(name).shapes
        macs = [_macs_of_shapes(part, weight, before, after) for before, after in shapes]
        what = type(part).__name__
        if all(macs):
            n = sum(macs)
            roads.macs[name]["linear" if weight.dim() == 2 else "conv"] = n
            yield Note(what, "no MACs are seen in it; {n} counted from its weight and output shape", name, n)
        else:
            yield Note(what, "has {n} weights, but no MACs are seen in it", name, weight.numel(), doubt=True)


def _macs_of_shapes(part: nn.Module, weight: Tensor, before: tuple[int, ...], after: tuple[int, ...]) -> int:
    """MACs of one call, from the shapes of its input and output; 0 where they are not those of a convolution or linear
    layer with this weight."""
    if not before or not after:
        return 0
    if weight.dim() == 2:
        fits = (after[-1], before[-1]) == tuple(weight.shape)
        return prod(after) * before[-1] if fits else 0
    if len(before) != weight.dim() or len(after) != weight.dim():
        return 0
    transposed = isinstance(part, nn.modules.conv._ConvTransposeNd)
    fits = (
        before[1] == weight.shape[0] if transposed else after[1] == weight.shape[0] and not before[1] % weight.shape[1]
    )
    return after[0] * prod((before if transposed else after)[2:]) * weight.numel() if fits else 0


def _call_notes(roads: Roads) -> Iterator[Note]:
    """Modules with weights that no call reaches."""
    for name, part in roads.parts.items():
        n = sum(p.numel() for p in part.parameters(recurse=False))
        held = isinstance(part, nn.ParameterList | nn.ParameterDict | torch.jit.ScriptModule)
        if not n or held or roads.seen(name).shapes or roads.watch.blind:
            continue
        what, user = type(part).__name__, _user_of(roads, name, part)
        if user is not None:
            text = f"its weights count here, its operations in {user or 'the network itself'}, which does them"
            yield Note(what, text, name, n)
        else:
            text = "never called: its {n} weights count, its operations do not (unless another module does them)"
            yield Note(what, text, name, n, doubt=name in roads.bits.reasons)


def _user_of(roads: Roads, name: str, part: nn.Module) -> str | None:
    """The nearest module above one never called that multiplies with weights of its shape."""
    weight, above = weight_of(part), name
    while weight is not None and above:
        above = above.rpartition(".")[0]
        if tuple(sorted(weight.shape)) in roads.seen(above).kernels:
            return above
    return None


def _operation_notes(roads: Roads) -> Iterator[Note]:
    """What fvcore does not know, and what torch executes that nobody knows."""
    covered = set()
    for name, operations in roads.trace.unsupported.items():
        for operation, times in operations.items():
            text, doubt = _judged(operation, name, roads)
            yield Note(operation, text, name, times=times, doubt=doubt)
            covered.update([name] if doubt else [])
    for name, seen in roads.watch.seen.items():
        for operation, times in seen.unknown.items():
            if name not in covered:
                yield Note(operation, _missing(operation), name, times=times, doubt=True)


def _judged(operation: str, name: str, roads: Roads) -> tuple[str, bool]:
    """Words for an operation that fvcore does not know, and whether they are a doubt."""
    namespace, _, plain = operation.partition("::")
    if namespace == "aten" and is_harmless(plain):
        return "no MACs", False
    if roads.total(name) > roads.traced(name) and not roads.watch.blind:
        return "fvcore does not see its MACs; they count as torch executes them", False
    if operation.startswith(_FOREIGN):
        return _judged_foreign(name, roads)
    if namespace == "aten" and not roads.is_opaque(name) and not roads.watch.blind:
        return "no MACs", False
    return _missing(operation), True


def _judged_foreign(name: str, roads: Roads) -> tuple[str, bool]:
    if roads.is_opaque(name) and not roads.total(name):
        return "opaque: MACs inside it are not seen", True
    if roads.is_opaque(name):
        return "opaque, but its layer shows MACs of its own", False
    return "no MACs inside it", False


def _missing(operation: str) -> str:
    namespace, _, plain = operation.partition("::")
    if namespace == "aten" and set(plain.strip("_").split("_")) & WITH_MACS:
        return "has MACs that are not counted"
    return "unknown: may hide MACs"
