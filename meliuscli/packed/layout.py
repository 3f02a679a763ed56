"""Where things lie: maps of pixels with all their channels, planes of one channel, and the tables that kernels read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from meliuscli.packed.isa import Isa
from meliuscli.packed.program import Array, zeros

WORD = 32


def round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def num_words(channels: int) -> int:
    return -(-channels // WORD)


@dataclass(frozen=True, slots=True)
class Window:
    """A square kernel, its stride, dilation and padding."""

    kernel: int
    stride: int = 1
    dilation: int = 1
    padding: int = 0

    def out_size(self, size: int) -> int:
        return (size + 2 * self.padding - self.dilation * (self.kernel - 1) - 1) // self.stride + 1

    def starts(self, size: int) -> Array:
        """The first row that each output row sees, -padding and on."""
        return np.arange(self.out_size(size)) * self.stride - self.padding

    def inside(self, size: int) -> Array:
        """(output rows, kernel): does this row of the window lie in the map?"""
        rows = self.starts(size)[:, None] + self.dilation * np.arange(self.kernel)
        return (rows >= 0) & (rows < size)


@dataclass(frozen=True, slots=True)
class Map:
    """(batch, height + 2 border, width + 2 border, channels): floats, or words of 32 channels."""

    data: Array
    border: int

    @staticmethod
    def make(batch: int, height: int, width: int, channels: int, border: int = 0, dtype: type[Any] = np.float32) -> Map:
        shape = (batch, height + 2 * border, width + 2 * border, channels)
        return Map(zeros(shape, dtype, spare=channels + 64), border)

    @property
    def height(self) -> int:
        return int(self.data.shape[1]) - 2 * self.border

    @property
    def width(self) -> int:
        return int(self.data.shape[2]) - 2 * self.border

    @property
    def inner(self) -> Array:
        """The map without its border."""
        b = self.border
        return self.data[:, b : b + self.height, b : b + self.width]

    def places(self, rows: Any, columns: Any) -> Array:
        """Byte offsets of pixels, all images of the batch after each other."""
        image, line, pixel, _ = self.data.strides
        images = np.arange(self.data.shape[0])[:, None, None] * image
        lines = (np.asarray(rows)[:, None] + self.border) * line
        return (images + lines + (np.asarray(columns) + self.border) * pixel).ravel()

    def all_places(self) -> Array:
        return self.places(range(self.height), range(self.width))

    def taps(self, window: Window, elements: Sequence[int]) -> Array:
        """Byte offsets of these elements of all pixels of a window, row after row."""
        _, line, pixel, _ = self.data.strides
        steps = np.arange(window.kernel) * window.dilation
        offsets = steps[:, None, None] * line + steps[:, None] * pixel + np.asarray(elements) * 4
        return offsets_of(offsets.ravel())


def offsets_of(values: Any) -> Array:
    """32-bit offsets as kernels read them. Raises ``OverflowError`` for maps that are too large for them."""
    values = np.asarray(values, np.int64)
    if values.size and values.max() >= 2**31:
        raise OverflowError("a map of more than 2 GiB")
    table = zeros(values.shape, np.int32)
    table[...] = values
    return table


def in_blocks(weights: Array, lanes: int) -> Array:
    """(outputs, taps) -> (blocks, taps, lanes): output channels side by side, zeros behind the last."""
    outputs, taps = weights.shape
    blocks = -(-outputs // lanes)
    padded = np.zeros((blocks * lanes, taps), weights.dtype)
    padded[:outputs] = weights
    result = zeros((blocks, taps, lanes), weights.dtype)
    result[...] = padded.reshape(blocks, lanes, taps).transpose(0, 2, 1)
    return result


def padded(values: Any, count: int, fill: float = 0.0) -> Array:
    """The last axis of float32 values brought to ``count``."""
    values = np.asarray(values, np.float32)
    result = zeros((*values.shape[:-1], count))
    result[...] = fill
    result[..., : values.shape[-1]] = values
    return result


def choose_vectors(outputs: int, isa: Isa, most: int) -> int:
    """Vectors a block, so that few lanes idle; more where that costs nothing, as they share the input."""
    vectors = -(-outputs // isa.lanes)

    def waste(count: int) -> tuple[bool, int]:
        return (round_up(vectors, count) - vectors) > 0.06 * vectors, -count

    return min(range(1, most + 1), key=waste)


@dataclass(frozen=True, slots=True)
class Planes:
    """(batch, channels, height + 2 pad, parities, margin + content + margin): a channel after the other. Two parities
    are the even and the odd columns, for a convolution of stride 2."""

    data: Array
    pad: int
    margin: int

    @staticmethod
    def make(batch: int, channels: int, height: int, content: int, pad: int, isa: Isa, parities: int = 1) -> Planes:
        """``content`` columns (of each parity), a multiple of the lanes."""
        shape = (batch, channels, height + 2 * pad, parities, content + 2 * isa.lanes)
        return Planes(zeros(shape, spare=1024), pad, isa.lanes)

    @property
    def line_bytes(self) -> int:
        return int(self.data.strides[2])

    @property
    def plane_bytes(self) -> int:
        return int(self.data.strides[1])

    @property
    def parity_bytes(self) -> int:
        return int(self.data.strides[3])

    def lines(self, rows: Any) -> Array:
        """Byte offsets of the first column of rows (-pad and on) of the first channel, image after image."""
        images = np.arange(self.data.shape[0])[:, None] * self.data.strides[0]
        return (images + (np.asarray(rows) + self.pad) * self.line_bytes + self.margin * 4).ravel()

    def taps(self, window: Window, channels: int) -> Array:
        """Byte offsets of a window's floats from its first row on, in order channel, row, column."""
        parities = self.data.shape[3]
        steps = np.arange(window.kernel) * window.dilation
        columns = steps - window.padding
        across = columns % parities * self.parity_bytes + columns // parities * 4
        offsets = np.arange(channels)[:, None, None] * self.plane_bytes + steps[:, None] * self.line_bytes + across
        table = zeros(offsets.size, np.int32)
        table[...] = offsets.ravel()
        return table
