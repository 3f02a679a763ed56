"""Signs as bits of words: packing, unpacking, and the weights of a binary convolution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from meliuscli.packed.layout import WORD, Window, num_words
from meliuscli.packed.program import Array


@dataclass(frozen=True, slots=True)
class BinaryWeights:
    """A binary convolution: ``words`` (outputs, kernel, kernel, words), bit c of word c // 32 set where the weight of
    input channel c is +1.

    ``xnor``: the result is the number of equal signs in [0, K] (MeliusNet), else their dot product in [-K, K]; times
    ``scale``, one an output channel. ``pad_value`` is -1, 0 or 1."""

    words: Array
    channels: int
    window: Window
    pad_value: int = -1
    xnor: bool = False
    scale: Array | None = None

    @property
    def outputs(self) -> int:
        return int(self.words.shape[0])

    def signs(self) -> Array:
        """(outputs, kernel, kernel, channels) of -1 and 1."""
        return unpack_bits(self.words, self.channels).astype(np.int8) * 2 - 1


def pack_bits(bits: Array) -> Array:
    """(..., channels) of booleans -> (..., words), the first channel in the lowest bit; little-endian machines only."""
    channels = bits.shape[-1]
    full = np.zeros((*bits.shape[:-1], num_words(channels) * WORD), bool)
    full[..., :channels] = bits
    return np.packbits(full, axis=-1, bitorder="little").view(np.uint32)


def unpack_bits(words: Array, channels: int) -> Array:
    """The inverse of ``pack_bits``."""
    bits = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=-1, bitorder="little")
    return bits[..., :channels].astype(bool)
