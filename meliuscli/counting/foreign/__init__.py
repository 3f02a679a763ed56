"""A network of the user's own: any ``nn.Module`` from a Python file, counted with the same rows as the specs.

fvcore's trace misses what runs inside autograd Functions, in scripted code and in operations that it does not know. So
the network runs once more under torch's dispatcher, which sees every operation that torch executes; where the two
differ the dispatcher's MACs count, and a verdict says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from meliuscli.counting.counts import FLOAT_BITS, Count, NetworkCount, Storage, merged, size_bytes
from meliuscli.counting.foreign.bits import own_network_bits
from meliuscli.counting.foreign.roads import Roads, compared
from meliuscli.counting.foreign.run import is_lazy_network, materialized, traced, unwrapped, watched
from meliuscli.counting.foreign.source import load_module, stdout_to_stderr
from meliuscli.counting.foreign.values import as_seen
from meliuscli.counting.foreign.verdicts import Verdict, verdicts
from meliuscli.counting.traced import Trace, count_trace
from meliuscli.errors import BadInputError

__all__ = ["OwnCount", "Verdict", "count_own", "load_module"]


@dataclass(frozen=True, slots=True)
class OwnCount:
    """The count of a user's network. ``verdicts``: doubts first. ``recognised``: why each layer that is not float
    without more ado counts at its bits, by the row's name."""

    count: NetworkCount
    verdicts: tuple[Verdict, ...]
    recognised: Mapping[str, str]


def count_own(
    module: nn.Module,
    input_shape: tuple[int, int, int],
    patterns: Sequence[str] = (),
    storage: Storage = Storage(),  # noqa: B008
) -> OwnCount:
    """Count ``module`` for one image of (channels, height, width), in evaluation mode and without gradients.

    ``patterns`` name binary modules (see ``own_network_bits``). Rows are modules with MACs or parameters of their own;
    what the network itself does outside its modules is a row named after its class, in parentheses. Elementwise
    operations are not counted. The module is left as it was; a lazy one is counted on a copy. Raises ``BadInputError``
    for an input that the network does not take and for patterns that match nothing, ``MissingError`` for too little
    memory."""
    module = unwrapped(module)
    with stdout_to_stderr():
        if is_lazy_network(module):
            module = materialized(module, input_shape)
        watch = watched(module, input_shape)
        bits = as_seen(own_network_bits(module, patterns), watch)
        trace, failure = traced(module, input_shape)
    if failure and watch.blind:
        raise BadInputError(f"the network runs, but cannot be counted: fvcore: {failure}; torch: {watch.blind}")
    roads, notes = compared(module, watch, trace, failure, bits)
    plain, owned = count_trace(module, Trace(roads.macs), bits, storage).layers, _owned(roads.parts)
    rows = {row.name: _finished(row, roads, owned[row.name], storage) for row in plain}
    named = {row.name: bits.reasons[name] for name, row in rows.items() if name in bits.reasons and _has_bits(row)}
    return OwnCount(NetworkCount(tuple(rows.values()), nested=True), verdicts(notes), named)


def _has_bits(row: Count) -> bool:
    return bool(row.macs) or any(bits < FLOAT_BITS for bits, _ in row.weights)


def _finished(row: Count, roads: Roads, own: Sequence[nn.Parameter], storage: Storage) -> Count:
    """The row with its output shape, the name that it is shown under, and its weights at their bits."""
    part, shapes = roads.parts[row.name], roads.seen(row.name).shapes
    name, output = row.name or f"({type(part).__name__})", shapes[-1][1][1:] if shapes else ()
    bits = roads.bits(row.name, part)[0]
    if bits == FLOAT_BITS:
        return replace(row, name=name, output=output)
    used = bool(row.macs) or not shapes or isinstance(part, nn.utils.parametrize.ParametrizationList)
    largest = max(own, key=Tensor.numel, default=None)
    by_bits = merged(
        (bits if used and _is_kernel(p, p is largest and bool(row.macs)) else FLOAT_BITS, p.numel()) for p in own
    )
    return replace(row, name=name, output=output, weights=by_bits, size_bytes=size_bytes(by_bits, storage))


def _is_kernel(parameter: nn.Parameter, is_main: bool) -> bool:
    """Is it what multiplies, not a bias or a scale a channel (which may have the dimensions of a map)?"""
    return parameter.dim() > 1 and (is_main or parameter.numel() > max(parameter.shape))


def _owned(parts: Mapping[str, nn.Module]) -> dict[str, list[nn.Parameter]]:
    """Each parameter under the first module that has it."""
    counted: set[int] = set()
    owned: dict[str, list[nn.Parameter]] = {}
    for name, part in parts.items():
        owned[name] = [p for p in part.parameters(recurse=False) if id(p) not in counted]
        counted.update(map(id, owned[name]))
    return owned
