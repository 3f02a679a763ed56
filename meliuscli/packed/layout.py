"""Where things lie: maps of pixels with all their channels, planes of one channel, and the tables that kernels read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from meliuscli.errors import BadInputError
from meliuscli.packed.isa import Isa
from meliuscli.packed.program import Array, zeros

WORD = 32


def round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def num_words(channels: int) -> int:
    return -(-channels // WORD)


@dataclass(frozen=True, slots=True)
class Window:
    """A square kernel, its stride and dilation, and its padding on both sides; or with ``same`` TensorFlow's, which depends on
    the map: as much as gives ceil(size / stride) rows, and of an odd number one more behind than in front."""

    kernel: int
    stride: int = 1
    dilation: int = 1
    padding: int = 0
    same: bool = False

    def border(self, size: int) -> tuple[int, int]:
        """Rows that lie before and behind a map of ``size``."""
        if not self.same:
            return self.padding, self.padding
        total = max((-(-size // self.stride) - 1) * self.stride + self.reach - size, 0)
        return total // 2, total - total // 2

    @property
    def reach(self) -> int:
        """Rows from its first to its last."""
        return self.dilation * (self.kernel - 1) + 1

    def out_size(self, size: int) -> int:
        return (size + sum(self.border(size)) - self.reach) // self.stride + 1

    def starts(self, size: int) -> Array:
        """The first row that each output row sees, from the border before the map on."""
        return np.arange(self.out_size(size)) * self.stride - self.border(size)[0]

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
        inner: Array = self.data[:, b : b + self.height, b : b + self.width]
        return inner

    def places(self, rows: Any, columns: Any) -> Array:
        """Byte offsets of pixels, all images of the batch after each other."""
        image, line, pixel, _ = self.data.strides
        images = np.arange(self.data.shape[0])[:, None, None] * image
        lines = (np.asarray(rows)[:, None] + self.border) * line
        offsets: Array = images + lines + (np.asarray(columns) + self.border) * pixel
        return offsets.ravel()

    def all_places(self) -> Array:
        return self.places(range(self.height), range(self.width))

    def taps(self, window: Window, elements: Sequence[int]) -> Array:
        """Byte offsets of these elements of all pixels of a window, row after row."""
        _, line, pixel, _ = self.data.strides
        steps = np.arange(window.kernel) * window.dilation
        offsets = steps[:, None, None] * line + steps[:, None] * pixel + np.asarray(elements) * 4
        return offsets_of(offsets.ravel())


def offsets_of(values: Any) -> Array:
    """32-bit offsets as kernels read them. Raises ``BadInputError`` for maps that are too large for them."""
    values = np.asarray(values, np.int64)
    if values.size and values.max() >= 2**31:
        raise BadInputError("a map of the packed network has more than 2 GiB", "take fewer images at a time")
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
