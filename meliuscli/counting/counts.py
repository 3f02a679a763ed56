"""Counts as values that add up: one row a layer, grouped rows, and the total as the exact sum of the rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby, takewhile
from typing import Literal, TypeVar

from meliuscli.arch.plan import place_name

FLOAT_BITS = 32

By = Literal["stage", "block", "layer"]


@dataclass(frozen=True, slots=True, order=True)
class Op:
    """What a MAC is: in which kind of layer, and the bits of its two operands (32 for float)."""

    layer: Literal["conv", "linear"]
    weight_bits: int
    activation_bits: int

    @property
    def is_binary(self) -> bool:
        return self.weight_bits == 1 and self.activation_bits == 1

    @property
    def is_float(self) -> bool:
        """One float operand makes the MAC a float one (larq's rule)."""
        return FLOAT_BITS in (self.weight_bits, self.activation_bits)

    @property
    def bits(self) -> str:
        return f"{self.weight_bits}x{self.activation_bits}"

    @property
    def prefix(self) -> str:
        """Of the kind of layer: ``binary_conv``, ``quantized_conv``, ``conv``."""
        return "binary_" if self.is_binary else "" if self.is_float else "quantized_"


Key = TypeVar("Key", int, Op)


@dataclass(frozen=True, slots=True)
class Storage:
    """How parameters are stored: the bits of a float, and the values a batch-norm channel keeps (two at inference,
    where scale and shift absorb mean and variance; up to four in a checkpoint)."""

    float_bits: int = FLOAT_BITS
    bn_params: int = 2


@dataclass(frozen=True, slots=True)
class Count:
    """The cost of a layer, a part or a whole network, for one image.

    ``macs`` holds the multiply-accumulates of convolutions and linear layers by kind, and ``weights`` the parameters by
    bits (weights, scales, shifts and biases; 32 for float). ``size_bytes`` has each layer padded to whole bytes.
    ``stage`` and ``block`` are where a layer of ours lies (see ``arch.plan.Layer``).
    ``output`` is the shape without the batch. ``elementwise`` are the operations of batch norm, activations, pooling
    and additions as the ``real2binary`` convention counts them."""

    name: str
    kind: str
    output: tuple[int, ...]
    macs: tuple[tuple[Op, int], ...] = ()
    weights: tuple[tuple[int, int], ...] = ()
    size_bytes: int = 0
    elementwise: int = 0
    stage: str = ""
    block: int = 0

    @property
    def binary_macs(self) -> int:
        """MACs of one-bit weights with one-bit activations."""
        return sum(n for op, n in self.macs if op.is_binary)

    @property
    def float_macs(self) -> int:
        """MACs with at least one float operand."""
        return sum(n for op, n in self.macs if op.is_float)

    @property
    def quantized_macs(self) -> int:
        """The MACs between: of 1 to 16 bits, and not both one bit."""
        return sum(n for op, n in self.macs if not op.is_float and not op.is_binary)

    @property
    def linear_macs(self) -> int:
        """The part of all MACs that is in linear layers."""
        return sum(n for op, n in self.macs if op.layer == "linear")

    @property
    def params(self) -> int:
        return sum(n for _, n in self.weights)

    @property
    def binary_params(self) -> int:
        """Weights of one bit."""
        return sum(n for bits, n in self.weights if bits == 1)

    @property
    def float_params(self) -> int:
        return sum(n for bits, n in self.weights if bits == FLOAT_BITS)

    @property
    def is_conv_of_one_pixel(self) -> bool:
        """Is it a convolution that does what a dense layer does?"""
        return any(op.layer == "conv" for op, _ in self.macs) and set(self.output[1:]) == {1}

    def by_bits(self) -> dict[str, dict[str, int]]:
        """``macs`` and ``weights`` as JSON has them: ``{"conv 1x1": 36864}``, ``{"1": 576}``."""
        macs = {f"{op.layer} {op.bits}": n for op, n in self.macs}
        return {"macs": macs, "weights": {str(bits): n for bits, n in self.weights}}


def read_by_bits(
    fields: Mapping[str, Mapping[str, int]],
) -> tuple[tuple[tuple[Op, int], ...], tuple[tuple[int, int], ...]]:
    """The MACs and weights of ``Count.by_bits``. Raises ``KeyError`` or ``ValueError`` where it is something else."""
    macs = []
    for name, n in fields["macs"].items():
        layer, bits = name.split()
        weight_bits, activation_bits = map(int, bits.split("x"))
        macs.append((Op("conv" if layer == "conv" else "linear", weight_bits, activation_bits), int(n)))
    return merged(macs), merged((int(bits), int(n)) for bits, n in fields["weights"].items())


def size_bytes(weights: Iterable[tuple[int, int]], storage: Storage) -> int:
    """Bytes of one layer's parameters, rounded up to whole bytes."""
    return -(-sum(n * (storage.float_bits if bits == FLOAT_BITS else bits) for bits, n in weights) // 8)


def merged(parts: Iterable[tuple[Key, int]]) -> tuple[tuple[Key, int], ...]:
    """Numbers added up by key, in order of the keys, without zeros."""
    sums: dict[Key, int] = {}
    for key, n in parts:
        sums[key] = sums.get(key, 0) + n
    return tuple(sorted((key, n) for key, n in sums.items() if n))


def add(rows: Iterable[Count], name: str, kind: str) -> Count:
    """The exact sum of rows, of none too; its output is the last row's."""
    rows = tuple(rows)
    return Count(
        name,
        kind,
        rows[-1].output if rows else (),
        macs=merged(part for row in rows for part in row.macs),
        weights=merged(part for row in rows for part in row.weights),
        size_bytes=sum(row.size_bytes for row in rows),
        elementwise=sum(row.elementwise for row in rows),
    )


@dataclass(frozen=True)
class NetworkCount:
    """All layers of a network, in order. A module of somebody else's has no stages and blocks: where ``nested``, the
    parts of its modules' names stand for them, behind what all have in common."""

    layers: tuple[Count, ...]
    nested: bool = False
    output: tuple[int, ...] | None = None
    """Where it is not the last layer's."""

    @cached_property
    def total(self) -> Count:
        total = add(self.layers, "total", "total")
        return total if self.output is None else replace(total, output=self.output)

    def rows(self, by: By) -> tuple[Count, ...]:
        """The layers, or their sums by block or stage; what has no blocks is one row of its own."""
        if by == "layer":
            return self.layers
        if self.nested:
            depth = (1 if by == "stage" else 2) + _common_parts([row.name for row in self.layers])
            groups = groupby(self.layers, lambda row: ".".join(row.name.split(".")[:depth]))
        else:
            groups = groupby(self.layers, lambda row: place_name(row.stage, row.block if by == "block" else 0))
        return tuple(add(rows, name, by) for name, rows in groups)


def _common_parts(names: list[str]) -> int:
    """How many parts in front all names share."""
    levels = zip(*(name.split(".")[:-1] for name in names), strict=False)
    return len(list(takewhile(lambda parts: len(set(parts)) == 1, levels)))
