"""The kernels that do the work: blocks of pixels times vectors of output channels (binary and float), and blocks of output
channels times vectors of pixels."""

from __future__ import annotations

from collections.abc import Callable

from meliuscli.packed.emit import Kernel, Value, i64
from meliuscli.packed.isa import Isa

FLUSH = 31
"""Words that bytes can count: 31 * 8 <= 255."""

CONV = (
    "input",  # of which a word is 32 channels, or one float
    "output",  # floats
    "pixels",  # a row an output pixel: byte offsets of its window in the input, in the output, and in the bias
    "taps",  # byte offsets of the window's words
    "tap_bytes",  # 4 * number of taps
    "weights",  # a block of output channels: a tap: a vector a lane
    "block_bytes",  # of weights
    "bias",  # a row of output channels a border class
    "scale",  # an output channel
    "factor",  # float: (factor * count + bias) * scale
    "old",  # what is added: the output itself, or zeros
    "old_mask",  # -1 or 0: with it offsets in the output become those in old
    "pixel_blocks",
)
PIXEL_BYTES = 12


def conv_kernel(isa: Isa, kind: str, vectors: int, pixels: int) -> str:
    """IR of a convolution whose lanes are output channels. ``kind`` is "binary" (what differs between input and
    weights is counted) or "float" (products are summed). Units are blocks of pixels, for each block of channels."""
    k = Kernel(f"conv_{kind}_{vectors}x{pixels}", isa.lanes, CONV)
    b, vector_bytes = k.builder, 4 * isa.lanes
    source, output, table, taps = (k.pointer(name) for name in ("input", "output", "pixels", "taps"))
    tap_bytes, weights, bias, scale = k.number("tap_bytes"), k.pointer("weights"), k.pointer("bias"), k.pointer("scale")
    block_bytes, old, old_mask = k.number("block_bytes"), k.pointer("old"), k.number("old_mask")
    factor, pixel_blocks = k.splat(k.float("factor")), k.number("pixel_blocks")

    def unit(index: Value) -> None:
        block, place = b.sdiv(index, pixel_blocks), b.srem(index, pixel_blocks)
        rows = k.at(table, b.mul(place, i64(PIXEL_BYTES * pixels)))
        own_weights = k.at(weights, b.mul(block, block_bytes))
        windows = [k.at(source, k.load_offset(rows, i64(PIXEL_BYTES * p))) for p in range(pixels)]

        def each(tap: Value, sums: list[Value], step: Step) -> list[Value]:
            offset = k.load_offset(taps, tap)
            here = k.at(own_weights, b.mul(tap, i64(vector_bytes // 4 * vectors)))
            kind_of = k.floats if kind == "float" else k.ints
            loaded = [k.load(kind_of, here, i64(vector_bytes * v)) for v in range(vectors)]
            new = []
            # A pixel at a time, or LLVM keeps more values alive than there are registers.
            for p, window in enumerate(windows):
                spread = k.splat(k.load(kind_of.element, window, offset))
                new += [step(sums[p * vectors + v], spread, loaded[v]) for v in range(vectors)]
            return new

        sums = _reduce(k, isa, kind, each, tap_bytes, vectors * pixels)
        channel = b.mul(block, i64(vector_bytes * vectors))
        for p in range(pixels):
            out = b.add(k.load_offset(rows, i64(PIXEL_BYTES * p + 4)), channel)
            own_bias = b.add(k.load_offset(rows, i64(PIXEL_BYTES * p + 8)), channel)
            for v in range(vectors):
                there = i64(vector_bytes * v)
                value = k.fma(sums[p * vectors + v], factor, k.load(k.floats, bias, b.add(own_bias, there)))
                value = b.fmul(value, k.load(k.floats, scale, b.add(channel, there)))
                before = k.load(k.floats, old, b.and_(b.add(out, there), old_mask))
                k.store(b.fadd(value, before), output, b.add(out, there))

    return k.units(unit)


Step = Callable[[Value, Value, Value], Value]
"""(sum so far, input spread over the lanes, weights) -> the sum with them."""
Each = Callable[[Value, list[Value], Step], list[Value]]
"""(byte offset in the taps, sums in order pixel and vector, step) -> the sums with that tap."""


def _reduce(k: Kernel, isa: Isa, kind: str, each: Each, tap_bytes: Value, count: int) -> list[Value]:
    """Sums over all taps as vectors of floats, in order pixel, vector."""
    if kind == "float":

        def multiply(total: Value, spread: Value, weights: Value) -> Value:
            return k.fma(spread, weights, total)

        zeros = [k.constant(k.floats, 0.0)] * count
        return k.loop(i64(0), tap_bytes, zeros, lambda tap, sums: each(tap, sums, multiply), step=4)
    reduce = _count_words if isa.counts_words else _count_bytes
    return [k.builder.sitofp(total, k.floats) for total in reduce(k, each, tap_bytes, count)]


def _count_words(k: Kernel, each: Each, tap_bytes: Value, count: int) -> list[Value]:
    def differing(total: Value, spread: Value, weights: Value) -> Value:
        return k.builder.add(total, k.intrinsic("ctpop", k.builder.xor(spread, weights)))

    zeros = [k.constant(k.ints, 0)] * count
    return k.loop(i64(0), tap_bytes, zeros, lambda tap, sums: each(tap, sums, differing), step=4)


def _count_bytes(k: Kernel, each: Each, tap_bytes: Value, count: int) -> list[Value]:
    """Counts a byte each, flushed into 32 bits before they can overflow."""
    b = k.builder

    def differing(total: Value, spread: Value, weights: Value) -> Value:
        return b.add(total, k.intrinsic("ctpop", b.bitcast(b.xor(spread, weights), k.bytes)))

    def flush(start: Value, sums: list[Value]) -> list[Value]:
        stop = b.add(start, i64(4 * FLUSH))
        stop = b.select(b.icmp_signed("<", stop, tap_bytes), stop, tap_bytes)
        zeros = [k.constant(k.bytes, 0)] * count
        counted = k.loop(start, stop, zeros, lambda tap, part: each(tap, part, differing), step=4)
        return [b.add(total, _four_bytes(k, part)) for total, part in zip(sums, counted, strict=True)]

    return k.loop(i64(0), tap_bytes, [k.constant(k.ints, 0)] * count, flush, step=4 * FLUSH)


def _four_bytes(k: Kernel, counts: Value) -> Value:
    """The sum of the four bytes of each 32-bit lane."""
    b, words = k.builder, k.builder.bitcast(counts, k.ints)
    low = k.constant(k.ints, 0x00FF00FF)
    pairs = b.add(b.and_(words, low), b.and_(b.lshr(words, k.constant(k.ints, 8)), low))
    return b.add(b.and_(pairs, k.constant(k.ints, 0xFFFF)), b.lshr(pairs, k.constant(k.ints, 16)))
