"""What the C library's memory is reckoned from, whatever the family: maps, packed signs, rows of a stem. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from meliuscli.arch.plan import FLOAT_BITS, Layer
from meliuscli.arch.spec import ArchSpec

WORD_BITS = 32
PIXELS = 8
"""That a float 1x1 convolution of the C library takes at a time."""


@dataclass(frozen=True, slots=True)
class Alive:
    """Bytes of the maps that are alive at once, at most, while a part of the network runs: those of floats, those of
    8 or 16 bits, and packed signs. ``block`` is the number of a block in the part, or 0."""

    part: str
    float_bytes: int = 0
    integer_bytes: int = 0
    sign_bytes: int = 0
    block: int = 0

    @property
    def total(self) -> int:
        return self.float_bytes + self.integer_bytes + self.sign_bytes


Constants = tuple[Layer, int]
"""Bytes of flash, and the layer that needs them."""


def map_bytes(channels: int, size: int, bits: int = FLOAT_BITS) -> int:
    """Of a map of ``size`` squared."""
    return -(-channels * size**2 * bits // 8)


def sign_bytes(channels: int, size: int) -> int:
    """Of a map of packed signs, in whole words a pixel."""
    return 4 * size**2 * -(-channels // WORD_BITS)


def stem_rows(spec: ArchSpec, layers: list[Layer], value_bytes: int = 4) -> int:
    """Every layer of a stem keeps the rows that the next one's window sees, with that window's margins: of the image even and
    odd columns apart where the first convolution has stride 2. Each begins at a multiple of four bytes."""
    total, channels, size = 0, spec.input_channels, spec.input_size
    layers = [layer for layer in layers if layer.kind in ("conv", "max_pool")]
    for layer in layers:
        split = layer.stride if layer.kind == "conv" else 1
        margin = -(-(layer.kernel // 2) // split)
        values = channels * layer.kernel * split * (-(-size // split) + 2 * margin)
        total += -(-values * value_bytes // 4) * 4
        channels, size = layer.out_channels, layer.out_size
    if layers[-1].kind == "conv":
        total += -(-channels * size * value_bytes // 4) * 4
    return total
