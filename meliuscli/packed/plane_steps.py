"""From the layers of a stem to steps on planes."""

from __future__ import annotations

import numpy as np

from meliuscli.packed import planes
from meliuscli.packed.isa import Isa
from meliuscli.packed.layout import Map, Window, in_blocks, offsets_of, padded
from meliuscli.packed.program import Argument, Array, Step, make_step, zeros
from meliuscli.packed.ring import Planes


def split_step(layer: str, isa: Isa, images: Array, out: Planes) -> Step:
    """(batch, channels, height, width) into planes; the width a multiple of the lanes (and parities)."""
    parities, (batch, channels, height, width) = out.data.shape[2], images.shape
    starts = (np.arange(batch * channels * height) * images.strides[2]).reshape(batch, channels, height)
    outs = out.lines(range(height)) + np.arange(channels)[:, None] * out.plane_bytes
    # Rows of an image together, whatever the channel, so that a range of units is a range of rows.
    rows = np.stack([starts, np.broadcast_to(outs, starts.shape)], axis=-1).transpose(0, 2, 1, 3).reshape(-1, 2)
    values: dict[str, Argument] = {
        "input": images,
        "output": out.data,
        "rows": offsets_of(rows),
        "row_bytes": width // parities * 4,
        "odd": out.parity_bytes,
    }
    name = f"split_{parities}"
    return make_step(
        layer, "float", name, isa, lambda: planes.split_kernel(isa, parities), planes.SPLIT, values, len(rows)
    )


def plane_step(
    layer: str,
    isa: Isa,
    source: Planes,
    out: Planes,
    batch: int,
    window: Window,
    weights: Array,
    bias: Array,
    relu: bool,
    vectors: int,
) -> Step:
    """A float convolution of planes: (outputs, inputs a group, kernel, kernel) weights; groups from their shape.
    ``vectors`` are those of an output row."""
    outputs, inputs = weights.shape[:2]
    groups = int(source.data.shape[0]) // inputs
    channels = next(count for count in (4, 2, 1) if outputs // groups % count == 0)
    together = 4 if isa.registers >= 32 else 2
    tail = vectors % together
    together = together if vectors > tail else 0
    blocked = in_blocks(weights.reshape(outputs, -1).astype(np.float32), channels)
    tables, which = source.taps(window, inputs)
    rows = np.stack([which * tables[0].nbytes, out.lines(range(out.height))], axis=1)
    row = vectors * isa.lanes
    values: dict[str, Argument] = {
        "input": source.data,
        "output": out.data,
        "rows": offsets_of(np.tile(rows, (batch, 1))),
        "taps": tables,
        "tap_bytes": tables[0].nbytes,
        "weights": blocked,
        "block_bytes": blocked[0].nbytes,
        "groups": offsets_of(np.arange(len(blocked)) * channels // (outputs // groups) * inputs * source.plane_bytes),
        "plane_bytes": out.plane_bytes,
        "bias": padded(bias, outputs),
        "blocks": len(blocked),
        "row_bytes": 4 * (row - tail * isa.lanes),
        "floor": 0.0 if relu else float("-inf"),
        "mask": padded(np.ones(out.height), row),
    }
    name = f"plane_{together}.{tail}x{channels}"
    units = batch * out.height
    return make_step(
        layer,
        "float",
        name,
        isa,
        lambda: planes.plane_kernel(isa, together, tail, channels),
        planes.PLANE,
        values,
        units,
    )


def gather_step(layer: str, isa: Isa, source: Planes, out: Map, pools: bool) -> Step:
    """Planes into a map, through 3x3 max pooling of stride 2 where ``pools`` (planes of ReLU, padded by 1)."""
    starts = np.arange(out.height) * 2 - 1 if pools else np.arange(out.height)
    lines = np.tile(source.lines(starts[:, None] + np.arange(3)), (out.data.shape[0], 1))
    values: dict[str, Argument] = {
        "input": source.data,
        "output": out.data,
        "rows": offsets_of(np.concatenate([lines, out.places(range(out.height), [0])[:, None]], axis=1)),
        "plane_bytes": source.plane_bytes,
        "vectors": source.data.shape[0] // isa.lanes,
        "width": out.width,
        "pixel_bytes": out.data.strides[2],
        "spare": zeros(64),
    }
    name = f"gather_{int(pools)}"
    return make_step(
        layer, "float", name, isa, lambda: planes.gather_kernel(isa, pools), planes.GATHER, values, len(lines)
    )
