"""A network of the user's own: any ``nn.Module`` from a Python file, counted with the same rows as the specs.

The network runs once under torch's dispatcher, which sees every operation that torch executes, inside autograd
Functions and scripted code too. Each product goes to the module whose weights it multiplies, at the bits that a ruling
gives it (``bits.ruling``)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from meliuscli.counting.counts import FLOAT_BITS, Count, NetworkCount, Op, Storage, merged, size_bytes
from meliuscli.counting.foreign.bits import Ruling, Word, check_words, parse_word, some
from meliuscli.counting.foreign.layers import Kernels, ModuleRow, Note, layers_of
from meliuscli.counting.foreign.run import Call, Example, unwrapped, watched
from meliuscli.counting.foreign.source import load_example, load_module
from meliuscli.counting.foreign.tensors import index_bytes, shape_of, tensors_in
from meliuscli.counting.foreign.watch import Watch
from meliuscli.processes import stdout_to_stderr

__all__ = ["Call", "Example", "Finding", "OwnCount", "count_own", "load_example", "load_module", "parse_word"]

MAP_DIMENSIONS = 4
"""Tensors of fewer have no first dimension that is a batch for sure: sequences have their length there."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found beside the plain count: an operation or a kind of module, how often, in which modules, and what it
    means in plain words. ``doubt``: the count may be wrong because of it."""

    what: str
    times: int
    modules: tuple[str, ...]
    verdict: str
    doubt: bool = False

    @property
    def sentence(self) -> str:
        """What was found, where, and what it means."""
        where = f" in {some(self.modules, 1)}" if any(self.modules) else ""
        return f"{self.what}{where}: {self.verdict}"


@dataclass(frozen=True, slots=True)
class OwnCount:
    """The count of a user's network. ``verdicts``: doubts first. ``rulings``: the bits of each layer with MACs, and why,
    by the row's name. ``dearest``: the count, were nothing assumed that makes it cheaper."""

    count: NetworkCount
    dearest: NetworkCount
    verdicts: tuple[Finding, ...]
    rulings: Mapping[str, tuple[Ruling, ...]]
    input_shape: tuple[int, ...] = ()
    """Of the first tensor; with the batch, where that is not one."""
    call: Call = field(default=((), {}), repr=False, compare=False)
    """What it was called with."""

    @property
    def recognised(self) -> dict[str, str]:
        """Why each layer that is not float without more ado counts at its bits, by the row's name."""
        named = {row: [one for one in all_ if min(one.bits) < FLOAT_BITS] for row, all_ in self.rulings.items()}
        return {row: few[0].why for row, few in named.items() if few}


def count_own(
    module: nn.Module,
    example: Example | tuple[int, ...],
    words: Sequence[Word | str] = (),
    storage: Storage = Storage(),  # noqa: B008
) -> OwnCount:
    """Count ``module`` for one example (or one image of (channels, height, width)), in evaluation mode and without
    gradients.

    ``words``: the bits of modules, by patterns; a pattern alone names binary ones. Rows are modules with MACs or weights
    of their own; what the network itself does outside its modules is a row named after its class, in parentheses.
    Elementwise operations are not counted. The module is left as it was; a lazy one is counted on a copy. Raises
    ``BadInputError`` for an input that the network does not take and for patterns that match nothing,
    ``MissingError`` for too little memory."""
    said = [parse_word(word) if isinstance(word, str) else word for word in words]
    example = example if isinstance(example, Example) else Example.of(example)
    with stdout_to_stderr():
        module, watch = watched(unwrapped(module), example)
    layers = layers_of(module, watch, said)
    check_words(said, {x.shown: x.names for x in layers}, [x.shown for x in layers if x.is_counted])
    return OwnCount(
        _network(layers, watch, storage, dearest=False),
        _network(layers, watch, storage, dearest=True),
        (*_batch_doubts(watch, example), *_verdicts(note for layer in layers for note in layer.notes())),
        {layer.shown: told for layer in layers if (told := tuple(layer.told()))},
        watch.input[1:] if watch.input[:1] == (1,) else watch.input,
        watch.call,
    )


def _batch_doubts(watch: Watch, example: Example) -> Iterator[Finding]:
    """Costs are of one image, but what multiplies the batch is not told from what does not, so nothing is divided."""
    maps = {shape_of(tensor)[0] for tensor in tensors_in(watch.call) if tensor.dim() >= MAP_DIMENSIONS}
    if example.is_whole and maps and max(maps) > 1:
        shape = "x".join(map(str, watch.input))
        yield Finding(
            "batch", 1, (), f"a batch of {max(maps)} images was counted ({shape}): give one for the cost of one", True
        )


def _network(layers: Sequence[ModuleRow], watch: Watch, storage: Storage, dearest: bool) -> NetworkCount:
    kernels: dict[int, Kernels] = {}
    for key, bits, made in (one for layer in layers for one in layer.kernels(dearest)):
        before = kernels.get(key, (0, {}))
        kernels[key] = max(before[0], bits), {**before[1], **made}
    rows = [_row(layer, kernels, storage, dearest) for layer in layers]
    return NetworkCount(tuple(row for row in rows if row.macs or row.weights), nested=True, output=watch.output[1:])


def _row(layer: ModuleRow, kernels: Mapping[int, Kernels], storage: Storage, dearest: bool) -> Count:
    bits = [rule.dearer if dearest else rule.bits for rule in layer.rulings]
    pairs = zip(layer.products, bits, strict=True)
    macs = merged((Op(product.kind, *pair), product.macs) for product, pair in pairs if product.macs)
    held = list(layer.weights(kernels, storage.bn_params))
    weights, stored = merged((bits, n) for bits, _, n in held), [(bits, n) for _, bits, n in held]
    kind = f"{macs[0][0].prefix}{macs[0][0].layer}" if macs else "batch_norm" if layer.norms else "parameters"
    size = size_bytes(stored, storage) + sum(map(index_bytes, layer.tensors.values()))
    return Count(layer.shown, kind, layer.output, macs, weights, size)


def _verdicts(notes: Iterable[Note]) -> tuple[Finding, ...]:
    """Notes (what, text, module, number, doubt) of the same words make one verdict; ``{n}`` is the sum of the numbers."""
    groups: dict[tuple[str, str, bool], list[tuple[str, int]]] = {}
    for what, text, module, number, doubt in notes:
        groups.setdefault((what, text, doubt), []).append((module, number))
    verdicts = []
    for (what, text, doubt), same in groups.items():
        said = text.replace("{n}", f"{sum(number for _, number in same):,}")
        verdicts.append(Finding(what, len(same), tuple(dict.fromkeys(module for module, _ in same)), said, doubt))
    return tuple(sorted(verdicts, key=lambda verdict: not verdict.doubt))
