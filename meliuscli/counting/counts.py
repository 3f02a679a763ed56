"""Counts as values that add up: one row a layer, grouped rows, and the total as the exact sum of the rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

By = Literal["stage", "block", "layer"]


@dataclass(frozen=True, slots=True)
class Count:
    """The cost of a layer, a part or a whole network, for one image.

    ``binary_macs`` and ``float_macs`` are multiply-accumulates of convolutions and linear layers, one each.
    ``params`` are all weights, scales and biases, ``binary_params`` those of one bit among them.
    ``size_bytes`` has one bit a binary weight (each layer padded to whole bytes) and four bytes any other parameter.
    ``output`` is the shape without the batch. ``linear_macs`` is the part of ``float_macs`` in linear layers.
    """

    name: str
    kind: str
    output: tuple[int, ...]
    binary_macs: int = 0
    float_macs: int = 0
    params: int = 0
    binary_params: int = 0
    size_bytes: int = 0
    linear_macs: int = 0

    @property
    def float_params(self) -> int:
        return self.params - self.binary_params


def layer_size_bytes(params: int, binary_params: int, float_bits: int = 32) -> int:
    """Bytes of one layer: one bit a binary weight, ``float_bits`` any other, rounded up to whole bytes."""
    return -(-(binary_params + (params - binary_params) * float_bits) // 8)


def add(rows: Iterable[Count], name: str, kind: str) -> Count:
    """The exact sum of rows; its output is the last row's."""
    rows = tuple(rows)
    return Count(
        name,
        kind,
        rows[-1].output,
        binary_macs=sum(row.binary_macs for row in rows),
        float_macs=sum(row.float_macs for row in rows),
        params=sum(row.params for row in rows),
        binary_params=sum(row.binary_params for row in rows),
        size_bytes=sum(row.size_bytes for row in rows),
        linear_macs=sum(row.linear_macs for row in rows),
    )


@dataclass(frozen=True, slots=True)
class NetworkCount:
    """All layers of a network, in order."""

    layers: tuple[Count, ...]

    @property
    def total(self) -> Count:
        return add(self.layers, "total", "total")

    def rows(self, by: By) -> tuple[Count, ...]:
        """The layers, or their sums by block or stage (the first two parts, or the first, of a layer's name)."""
        if by == "layer":
            return self.layers
        depth = 1 if by == "stage" else 2
        groups = groupby(self.layers, lambda row: _part(row.name, depth))
        return tuple(add(rows, name, by) for name, rows in groups)


def _part(name: str, depth: int) -> str:
    """``stage1.block2.dense.conv`` -> ``stage1`` or ``stage1.block2``; parts without blocks stay whole."""
    parts = name.split(".")
    return ".".join(parts[:depth]) if len(parts) > 1 and parts[1].startswith("block") else parts[0]
