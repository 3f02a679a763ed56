"""Kernels for what surrounds the convolutions: sign and pack, batch norm with pooling, planes in and out."""

from __future__ import annotations

from meliuscli.packed.emit import I32, Kernel, Value, i64
from meliuscli.packed.isa import Isa, no_llvmlite

try:
    from llvmlite import ir
except ImportError:
    raise no_llvmlite() from None

WORD = 32
PAIR_BYTES = 8
"""A row of a table of places: byte offsets in the input and in the output."""

PACK = ("input", "output", "places", "words_bytes", "thresholds", "flips")


def pack_kernel(isa: Isa) -> str:
    """IR of sign and pack: bit c of a pixel is (x[c] >= thresholds[c]) xor flips[c]. Units are pixels."""
    k = Kernel("pack", isa.lanes, PACK)
    source, output, table = k.pointer("input"), k.pointer("output"), k.pointer("places")
    words_bytes, thresholds, flips = k.number("words_bytes"), k.pointer("thresholds"), k.pointer("flips")
    b, channels = k.builder, ir.VectorType(k.floats.element, WORD)

    def unit(index: Value) -> None:
        row = k.at(table, b.mul(index, i64(PAIR_BYTES)))
        pixel = k.at(source, k.load_offset(row, i64(0)))
        out = k.at(output, k.load_offset(row, i64(4)))

        def word(offset: Value, _: list[Value]) -> list[Value]:
            first = b.mul(offset, i64(WORD))
            above = b.fcmp_ordered(">=", k.load(channels, pixel, first), k.load(channels, thresholds, first))
            k.store(b.xor(b.bitcast(above, I32), k.load(I32, flips, offset)), out, offset)
            return []

        k.loop(i64(0), words_bytes, [], word, step=4)

    return k.units(unit)


POOL = ("input", "output", "places", "right", "below", "channel_bytes", "scale", "shift")


def norm_pool_kernel(isa: Isa, pools: bool) -> str:
    """IR of batch norm, 2x2 max pooling (where ``pools``) and ReLU, pixel by pixel; ``right`` and ``below`` are the
    byte offsets of the neighbours. Units are output pixels."""
    k = Kernel(f"norm_pool_{int(pools)}", isa.lanes, POOL)
    source, output, table = k.pointer("input"), k.pointer("output"), k.pointer("places")
    right, below, channel_bytes = k.number("right"), k.number("below"), k.number("channel_bytes")
    scale, shift, b = k.pointer("scale"), k.pointer("shift"), k.builder
    steps = [i64(0), right, below, b.add(right, below)] if pools else [i64(0)]

    def unit(index: Value) -> None:
        row = k.at(table, b.mul(index, i64(PAIR_BYTES)))
        pixel = k.at(source, k.load_offset(row, i64(0)))
        out = k.at(output, k.load_offset(row, i64(4)))
        window = [k.at(pixel, step) for step in steps]

        def channels(offset: Value, _: list[Value]) -> list[Value]:
            times, plus = k.load(k.floats, scale, offset), k.load(k.floats, shift, offset)
            highest = k.constant(k.floats, 0.0)
            for place in window:
                highest = k.larger(k.fma(k.load(k.floats, place, offset), times, plus), highest)
            k.store(highest, out, offset)
            return []

        k.loop(i64(0), channel_bytes, [], channels, step=4 * isa.lanes)

    return k.units(unit)


MEAN = ("input", "output", "image_bytes", "pixel_bytes", "pixels", "vectors", "scale", "shift", "weight")


def mean_kernel(isa: Isa) -> str:
    """IR of batch norm, ReLU and the mean over all pixels. Units are vectors of channels, image after image."""
    k = Kernel("mean", isa.lanes, MEAN)
    source, output, vectors = k.pointer("input"), k.pointer("output"), k.number("vectors")
    image_bytes, pixel_bytes, pixels = (k.number(n) for n in ("image_bytes", "pixel_bytes", "pixels"))
    scale, shift, weight = k.pointer("scale"), k.pointer("shift"), k.splat(k.real("weight"))
    b, zero, vector_bytes = k.builder, k.constant(k.floats, 0.0), i64(4 * isa.lanes)

    def unit(index: Value) -> None:
        channel = b.mul(b.srem(index, vectors), vector_bytes)
        image = k.at(source, b.add(b.mul(b.sdiv(index, vectors), image_bytes), channel))
        times, plus = k.load(k.floats, scale, channel), k.load(k.floats, shift, channel)

        def pixel(number: Value, sums: list[Value]) -> list[Value]:
            value = k.fma(k.load(k.floats, image, b.mul(number, pixel_bytes)), times, plus)
            return [b.fadd(sums[0], k.larger(value, zero))]

        (total,) = k.loop(i64(0), pixels, [zero], pixel)
        k.store(b.fmul(total, weight), output, b.mul(index, vector_bytes))

    return k.units(unit)
