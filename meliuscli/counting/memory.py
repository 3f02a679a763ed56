"""What a network needs of a device, by arithmetic on its layers: RAM for the maps that are alive at once, and flash for its
constants. No torch.

MeliusNet and BinaryDenseNet are laid out as the C library runs them (``meliuscli.export.c``): maps pixel by pixel, float
channels in 32 bits and counts in 16, a stage as one map that blocks write into, and of the stem's maps and of signs only the
rows that a window sees. So are the residual and small networks that have a C library (``memory_chain``). Of the other families each layer is taken on its own, in the order of the network: what it reads
and what it writes are there, and what came into its block where the block adds to that or joins it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby

from meliuscli.arch.families.dense import DenseFamilySpec, runs_whole
from meliuscli.arch.plan import FLOAT_BITS, HEAD, STEM, Layer, place_name
from meliuscli.arch.spec import ArchSpec
from meliuscli.counting.counts import By
from meliuscli.counting.memory_chain import chain_flash, chain_parts, runs_as_chain
from meliuscli.counting.memory_int8 import has_float_ends, int8_flash, int8_parts
from meliuscli.counting.memory_parts import PIXELS, WORD_BITS, Alive, Constants, map_bytes, stem_rows


@dataclass(frozen=True, slots=True)
class Memory:
    """What is alive in every block and part of a network, in order, and the bytes of their constants. ``is_c`` says whether the C
    library is laid out so, and ``is_int8`` whether with stem and head in int8."""

    moments: tuple[Alive, ...]
    constants: tuple[tuple[str, int, int], ...]
    """Of a stage and the number of a block in it, or 0: bytes."""
    is_c: bool
    is_int8: bool = False

    @property
    def legend(self) -> str:
        library = "the library of export --to c --float-bits 8" if self.is_int8 else "the library of export --to c"
        how = f"as {library} runs" if self.is_c else "an estimate, layer by layer, which no export of ours does"
        return (
            f"RAM: maps alive at once, {how}, without image and logits; its total is the largest; flash: constants without"
            " code (meliuscli explain memory)"
        )

    @property
    def order(self) -> str:
        """As JSON and CSV have it: whether both figures are exact (c), or an estimate (layers)."""
        return "c" if self.is_c else "layers"

    @property
    def floats(self) -> str:
        return "stem and head in int8" if self.is_int8 else f"floats of {FLOAT_BITS} bits"

    @property
    def parts(self) -> tuple[Alive, ...]:
        """The largest moment of each stage, transition, stem and head."""
        return tuple(replace(moment, block=0) for moment in _largest(self.moments, by_block=False))

    @property
    def peak(self) -> Alive:
        return max(self.parts, key=lambda part: part.total)

    @property
    def ram_bytes(self) -> int:
        return self.peak.total

    @property
    def flash_bytes(self) -> int:
        return sum(size for _, _, size in self.constants)

    def by_part(self, by: By) -> dict[str, tuple[Alive, int]]:
        """What is alive in each stage or block, and its flash, by the names of the rows of a count. Nothing is alive in what
        another part does on its way (a batch norm of the image). Layers have neither: they share what is alive."""
        if by == "layer":
            return {}
        by_block = by == "block"
        alive = {place_name(one.part, one.block): one for one in (self.moments if by_block else self.parts)}
        flash: Counter[str] = Counter()
        for stage, block, size in self.constants:
            flash[place_name(stage, block if by_block else 0)] += size
        return {name: (alive.get(name, Alive(name)), flash[name]) for name in {**alive, **flash}}


def memory_of(spec: ArchSpec, float_bits: int = FLOAT_BITS) -> Memory:
    """RAM without the image and the logits, and flash without code. With ``float_bits`` of 8 stem and head are in int8 where there is
    such a library; other bits change nothing."""
    layers = spec.layers()
    if runs_whole(spec):
        moments, constants, is_c = _dense_parts(spec, layers), _dense_flash(spec, layers), True
    elif runs_as_chain(spec):
        moments, constants, is_c = chain_parts(spec, layers), chain_flash(spec, layers), True
    else:
        moments, constants, is_c = _parts(layers), ((layer, _constant_bytes(layer)) for layer in layers), False
    alive, held = _largest(moments), list(constants)
    is_int8 = float_bits == 8 and is_c and has_float_ends(spec)
    if is_int8:
        alive = int8_parts(spec, layers, alive)
        held += int8_flash(spec, layers)
    return Memory(alive, _by_place(held), is_c, is_int8)


def _largest(moments: Iterable[Alive], by_block: bool = True) -> tuple[Alive, ...]:
    """Of those of a part, or of a block of it, the largest one."""
    groups = groupby(moments, lambda one: (one.part, one.block if by_block else 0))
    return tuple(max(own, key=lambda one: one.total) for _, own in groups)


def _by_place(constants: Iterable[Constants]) -> tuple[tuple[str, int, int], ...]:
    sums: Counter[tuple[str, int]] = Counter()
    for layer, size in constants:
        sums[layer.stage, layer.block] += size
    return tuple((*place, size) for place, size in sums.items())


# Laid out as in C


def _dense_parts(spec: DenseFamilySpec, layers: tuple[Layer, ...]) -> Iterator[Alive]:
    parts = [(stage, list(group)) for stage, group in groupby(layers, lambda layer: layer.stage)]
    first = next(layer for layer in layers if layer.stage == "stage1")
    yield Alive(STEM, map_bytes(first.in_channels, first.out_size) + stem_rows(spec, parts[0][1]))
    counts = entered = 0
    for stage, own in parts[1:]:
        pixels = own[0].out_size ** 2
        if own[0].block:
            entered, channels = own[0].in_channels, own[-1].out_channels
            counts = -(-pixels * (channels - entered) * _count_bits(spec, layers) // 32) * 4
            for block, members in groupby(own, lambda layer: layer.block):
                yield Alive(stage, 4 * pixels * entered, counts, max(map(_sign_rows, members)), block)
        elif stage == HEAD:
            yield Alive(stage, 4 * (own[0].out_size ** 2 * entered + 2 * own[0].in_channels), counts)
        else:
            left = map_bytes(own[-1].out_channels, own[-1].out_size) + 4 * PIXELS * own[0].in_channels
            yield Alive(stage, 4 * pixels * entered + left, counts)


def _count_bits(spec: DenseFamilySpec, layers: tuple[Layer, ...]) -> int:
    """Of what a DenseBlock counts and an ImprovementBlock adds; one value more stands for "never"."""
    most = max(layer.weights // layer.out_channels for layer in layers if layer.activation_bits == 1)
    return 16 if most * (1 + spec.improvement) < 65535 else 32


def _sign_rows(layer: Layer) -> int:
    """Of a binary convolution: the rows that its window spans, and one of the signs that lie outside."""
    if layer.activation_bits != 1:
        return 0
    rows, columns = 2 * layer.dilation + 2, layer.out_size + 2 * layer.dilation
    return 4 * rows * columns * -(-layer.in_channels // WORD_BITS)


def _dense_flash(spec: DenseFamilySpec, layers: tuple[Layer, ...]) -> Iterator[Constants]:
    """Signs in words of 32 input channels, thresholds of floats in 32 bits and of counts in theirs, a word of directions for
    32 thresholds; a stem's batch norms are in its biases; grouped transitions have a table of their channels."""
    entered, stage = 0, ""
    for layer in layers:
        if layer.stage != stage:
            stage, entered = layer.stage, layer.in_channels
        words = -(-layer.in_channels // WORD_BITS)
        if layer.activation_bits == 1:
            counted = layer.in_channels - entered
            yield layer, 4 * (layer.out_channels * layer.kernel**2 + 1) * words
            yield layer, 4 * entered + counted * _count_bits(spec, layers) // 8
        elif layer.kind in ("conv", "linear"):
            yield layer, 4 * layer.weights + (4 * layer.out_channels if layer.bias or stage == STEM else 0)
            yield layer, 2 * layer.in_channels if layer.groups > 1 and stage != STEM else 0
        elif layer.kind == "batch_norm" and stage != STEM and not layer.block:
            yield layer, 8 * layer.in_channels


# Layer by layer


def _parts(layers: tuple[Layer, ...]) -> Iterator[Alive]:
    """Every moment of each block. The image is the caller's."""
    before = 0
    for (stage, block), own in groupby(layers, lambda layer: (layer.stage, layer.block)):
        members = list(own)
        joins = any(layer.kind in ("add", "concat") for layer in members)
        kept, reads = (before, 0) if joins else (0, before)
        for layer in members:
            yield replace(_moment(stage, layer, kept, reads, before), block=block)
            if (layer.kind in _MAKING or before == 0) and ".shortcut." not in f".{layer.name}.":
                reads = before = map_bytes(layer.out_channels, layer.out_size)


_MAKING = ("conv", "linear", "max_pool", "avg_pool", "concat")
"""Layers that write a map of their own; the others work where their input is, but for the caller's image."""


def _moment(stage: str, layer: Layer, kept: int, reads: int, before: int) -> Alive:
    """``kept`` of a block's input, and what the layer ``reads`` besides. A convolution of few bits reads a copy of its
    input (float, ``before`` bytes) in its own bits, and the float map is gone where nobody else wants it."""
    if layer.kind not in _MAKING and before > 0:
        return Alive(stage, kept + reads)
    out, bits = map_bytes(layer.out_channels, layer.out_size), layer.activation_bits
    if bits > 8:
        return Alive(stage, kept + reads + out)
    copied = before * (1 if bits == 1 else 8) // FLOAT_BITS
    signs, integers = (copied, 0) if bits == 1 else (0, copied)
    return Alive(stage, kept + max(reads, out), integers, signs)


def _constant_bytes(layer: Layer) -> int:
    """Weights at their bits in whole bytes, two floats a channel of batch norm, and what else is learned."""
    if layer.kind in ("conv", "linear"):
        return -(-layer.weights * layer.weight_bits // 8) + (4 * layer.out_channels if layer.bias else 0)
    return 8 * layer.out_channels if layer.kind == "batch_norm" else 4 * layer.params
