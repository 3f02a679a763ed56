"""Planes that hold a few rows at a time: what lies between the layers of a stem never leaves the cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from meliuscli.packed.isa import Isa
from meliuscli.packed.layout import Window, offsets_of
from meliuscli.packed.program import Array, zeros

Rows = tuple[int, int]
"""From the first row to before the last."""


@dataclass(frozen=True, slots=True)
class Planes:
    """(channels, slots + 1, parities, margin + content + margin): a channel after the other, row r in slot r modulo the
    slots; the last slot stays zero, for rows outside. Two parities are the even and the odd columns, for a convolution
    of stride 2. One image at a time."""

    data: Array
    height: int
    margin: int

    @staticmethod
    def make(channels: int, height: int, slots: int, content: int, isa: Isa, parities: int = 1) -> Planes:
        """``content`` columns (of each parity), a multiple of the lanes."""
        shape = (channels, slots + 1, parities, content + 2 * isa.lanes)
        return Planes(zeros(shape, spare=1024), height, isa.lanes)

    @property
    def plane_bytes(self) -> int:
        return int(self.data.strides[0])

    @property
    def parity_bytes(self) -> int:
        return int(self.data.strides[2])

    def lines(self, rows: Any) -> Array:
        """Byte offsets of the first column of rows of the first channel; of zeros for rows outside."""
        rows, zero = np.asarray(rows), self.data.shape[1] - 1
        slots = np.where((rows >= 0) & (rows < self.height), rows % max(zero, 1), zero)
        offsets: Array = slots * self.data.strides[1] + self.margin * 4
        return offsets

    def taps(self, window: Window, channels: int) -> tuple[Array, Array]:
        """Tables of the byte offsets of a window's floats, in order channel, row, column; and for each output row
        which table is its."""
        parities = self.data.shape[2]
        steps = np.arange(window.kernel) * window.dilation
        columns = steps - window.padding
        across = columns % parities * self.parity_bytes + columns // parities * 4
        seen = self.lines(window.starts(self.height)[:, None] + steps)
        kinds, which = np.unique(seen, axis=0, return_inverse=True)
        planes = np.arange(channels)[:, None, None] * self.plane_bytes
        tables = kinds[:, None, :, None] + planes + across
        return offsets_of(tables.reshape(len(kinds), -1)), which.ravel()


def schedule(windows: Sequence[Window], heights: Sequence[int], rows: Rows, band: int) -> list[list[Rows]]:
    """How to make ``rows`` of the last of a chain of layers a few at a time: ``band`` of the last and, of each before
    it, what those need and is not there yet. ``windows[i]`` is how layer i + 1 sees layer i."""
    done = [rows[0]]
    for window in reversed(windows):
        done.insert(0, max(done[0] * window.stride - window.padding, 0))
    bands = []
    while done[-1] < rows[1]:
        ends = [min(done[-1] + band, rows[1])]
        for window, height in zip(reversed(windows), reversed(heights[:-1]), strict=True):
            last = (ends[0] - 1) * window.stride - window.padding + window.dilation * (window.kernel - 1)
            ends.insert(0, min(max(last + 1, 0), height))
        ends = [max(end, before) for end, before in zip(ends, done, strict=True)]
        bands.append(list(zip(done, ends, strict=True)))
        done = ends
    return bands


def slots_needed(bands: Sequence[Sequence[Rows]], windows: Sequence[Window], layer: int) -> int:
    """Rows of a layer that must be there at a time."""
    window = windows[layer]
    return max(rows[layer][1] - max(rows[layer + 1][0] * window.stride - window.padding, 0) for rows in bands)
