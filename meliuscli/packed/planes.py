"""Kernels on planes (a channel after the other, a row padded on both sides), where lanes are pixels: float convolutions
of few channels, as in stems, and the way into planes and out of them."""

from __future__ import annotations

from meliuscli.packed.emit import Kernel, Value, i64
from meliuscli.packed.isa import Isa
from meliuscli.packed.maps import PAIR_BYTES

PLANE = (
    "input",
    "output",
    "rows",  # a row an output row: byte offsets of its window in the input, and of the row in the output
    "taps",  # byte offsets of the window's floats, all channels of a group
    "tap_bytes",
    "weights",  # a block of output channels: a tap: a channel
    "block_bytes",  # of weights
    "groups",  # byte offsets of the planes that a block of output channels sees
    "plane_bytes",  # of the output
    "bias",
    "blocks",
    "row_bytes",  # without the tail
    "floor",  # float: ReLU's 0, or minus infinity
    "mask",  # 1 where a row has pixels, 0 behind them
)


def plane_kernel(isa: Isa, vectors: int, tail: int, channels: int) -> str:
    """IR of a float convolution of planes, with bias and ReLU: blocks of ``channels`` output channels times ``vectors``
    vectors of pixels (none where that is 0), and at a row's end times ``tail`` vectors. Units are output rows."""
    k = Kernel(f"plane_{vectors}.{tail}x{channels}", isa.lanes, PLANE)
    b, vector_bytes = k.builder, 4 * isa.lanes
    source, output, rows, taps, groups = (k.pointer(n) for n in ("input", "output", "rows", "taps", "groups"))
    tap_bytes, weights, block_bytes = k.number("tap_bytes"), k.pointer("weights"), k.number("block_bytes")
    plane_bytes, bias, blocks = k.number("plane_bytes"), k.pointer("bias"), k.number("blocks")
    row_bytes, floor, mask = k.number("row_bytes"), k.splat(k.float("floor")), k.pointer("mask")
    scalar = k.floats.element

    def unit(index: Value) -> None:
        row = k.at(rows, b.mul(index, i64(PAIR_BYTES)))
        window, out = k.at(source, k.load_offset(row, i64(0))), k.at(output, k.load_offset(row, i64(4)))

        def block(number: Value, _: list[Value]) -> list[Value]:
            planes = k.at(window, k.load_offset(groups, b.mul(number, i64(4))))
            own_weights = k.at(weights, b.mul(number, block_bytes))
            first = b.mul(number, i64(channels))
            biases = [k.load(scalar, bias, b.mul(b.add(first, i64(c)), i64(4))) for c in range(channels)]
            outs = [k.at(out, b.mul(b.add(first, i64(c)), plane_bytes)) for c in range(channels)]

            def pixels(x: Value, count: int) -> list[Value]:
                here = k.at(planes, x)

                def tap(number: Value, sums: list[Value]) -> list[Value]:
                    place = k.at(here, k.load_offset(taps, number))
                    seen = [k.load(k.floats, place, i64(vector_bytes * v)) for v in range(count)]
                    at = k.at(own_weights, b.mul(number, i64(channels)))
                    new = []
                    for c in range(channels):
                        weight = k.splat(k.load(scalar, at, i64(4 * c)))
                        new += [k.fma(weight, seen[v], sums[c * count + v]) for v in range(count)]
                    return new

                start = [k.splat(value) for value in biases for _ in range(count)]
                sums = k.loop(i64(0), tap_bytes, start, tap, step=4)
                for v in range(count):
                    there = b.add(x, i64(vector_bytes * v))
                    kept = k.load(k.floats, mask, there)
                    for c in range(channels):
                        value = b.fmul(k.larger(sums[c * count + v], floor), kept)
                        k.store(value, outs[c], there)
                return []

            if vectors:
                k.loop(i64(0), row_bytes, [], lambda x, _: pixels(x, vectors), step=vector_bytes * vectors)
            if tail:
                pixels(row_bytes, tail)
            return []

        k.loop(i64(0), blocks, [], block)

    return k.units(unit)


SPLIT = ("input", "output", "rows", "row_bytes", "odd")


def split_kernel(isa: Isa, stride: int) -> str:
    """IR of rows into planes; with ``stride`` 2 the even columns into one and the odd ones ``odd`` bytes further.
    ``row_bytes`` are those of an output row. Units are rows."""
    k = Kernel(f"split_{stride}", isa.lanes, SPLIT)
    source, output, rows = k.pointer("input"), k.pointer("output"), k.pointer("rows")
    row_bytes, odd, b, lanes = k.number("row_bytes"), k.number("odd"), k.builder, isa.lanes

    def unit(index: Value) -> None:
        row = k.at(rows, b.mul(index, i64(PAIR_BYTES)))
        line, out = k.at(source, k.load_offset(row, i64(0))), k.at(output, k.load_offset(row, i64(4)))

        def pixels(x: Value, _: list[Value]) -> list[Value]:
            first = b.mul(x, i64(stride))
            low = k.load(k.floats, line, first)
            if stride == 1:
                k.store(low, out, x)
                return []
            high = k.load(k.floats, line, b.add(first, i64(4 * lanes)))
            k.store(k.pick(low, high, range(0, 2 * lanes, 2)), out, x)
            k.store(k.pick(low, high, range(1, 2 * lanes, 2)), k.at(out, odd), x)
            return []

        k.loop(i64(0), row_bytes, [], pixels, step=4 * lanes)

    return k.units(unit)


GATHER = ("input", "output", "rows", "plane_bytes", "line_bytes", "vectors", "width", "pixel_bytes", "spare")


def gather_kernel(isa: Isa, pools: bool) -> str:
    """IR of planes into pixels of channels, through 3x3 max pooling of stride 2 where ``pools`` (its padding 0, as
    planes are behind ReLU). ``spare`` takes what lies behind a row's ``width``. Units are output rows."""
    k = Kernel(f"gather_{int(pools)}", isa.lanes, GATHER)
    source, output, rows, spare = (k.pointer(n) for n in ("input", "output", "rows", "spare"))
    plane_bytes, line_bytes, vectors = k.number("plane_bytes"), k.number("line_bytes"), k.number("vectors")
    width, pixel_bytes, b, lanes = k.number("width"), k.number("pixel_bytes"), k.builder, isa.lanes

    def line(plane: Value, x: Value) -> Value:
        """``lanes`` output pixels of one channel, from ``x`` on."""
        if not pools:
            return k.load(k.floats, plane, b.mul(x, i64(4)))
        down = []
        for shift in (-4, 0, 4 * lanes - 4, 4 * lanes):
            place = k.at(plane, b.add(b.mul(x, i64(8)), i64(shift)))
            three = [k.load(k.floats, place, b.mul(line_bytes, i64(y))) for y in range(3)]
            down.append(k.larger(k.larger(three[0], three[1]), three[2]))
        left = k.pick(down[0], down[2], range(0, 2 * lanes, 2))
        middle = k.pick(down[1], down[3], range(0, 2 * lanes, 2))
        right = k.pick(down[1], down[3], range(1, 2 * lanes, 2))
        return k.larger(k.larger(left, middle), right)

    def unit(index: Value) -> None:
        row = k.at(rows, b.mul(index, i64(PAIR_BYTES)))
        window, out = k.at(source, k.load_offset(row, i64(0))), k.at(output, k.load_offset(row, i64(4)))

        def block(number: Value, _: list[Value]) -> list[Value]:
            first = b.mul(number, i64(lanes))
            planes = [k.at(window, b.mul(b.add(first, i64(c)), plane_bytes)) for c in range(lanes)]
            channel = b.mul(number, i64(4 * lanes))

            def pixels(x: Value, _: list[Value]) -> list[Value]:
                for place, value in enumerate(_transposed(k, [line(plane, x) for plane in planes])):
                    column = b.add(x, i64(place))
                    there = k.at(out, b.add(b.mul(column, pixel_bytes), channel))
                    k.store(value, b.select(b.icmp_signed("<", column, width), there, spare))
                return []

            k.loop(i64(0), width, [], pixels, step=lanes)
            return []

        k.loop(i64(0), vectors, [], block)

    return k.units(unit)


def _transposed(k: Kernel, rows: list[Value]) -> list[Value]:
    """A square of lanes, by rounds of interleaving halves: after log2(n) of them row i holds column i."""
    lanes = len(rows)
    low = [lane // 2 + lanes * (lane % 2) for lane in range(lanes)]
    high = [lane + lanes // 2 for lane in low]
    distance = lanes // 2
    for _ in range(lanes.bit_length() - 1):
        pairs = [(rows[i], rows[i + distance]) for i in range(distance)]
        rows = [part for first, second in pairs for part in (k.pick(first, second, low), k.pick(first, second, high))]
    return rows
