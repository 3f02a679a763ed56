"""A network drawn: its stages from input to classes, with what is in them and where the work is."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from meliuscli.arch.plan import Layer
from meliuscli.counting.conventions import MELIUS
from meliuscli.counting.counts import Count
from meliuscli.report.count import Counted, shape_text
from meliuscli.report.tables import Cell, Column, Table
from meliuscli.units import format_count

BAR = 20
"""Characters of a bar of all MACs."""


def drawing_table(network: Counted) -> Table:
    """One row a stage: the map that leaves it, its blocks and convolutions, its MACs and their share of all."""
    assert network.spec is not None
    rows = network.count.rows("stage")
    everything = sum(_macs(row) for row in rows)
    stages = {name: list(layers) for name, layers in groupby(network.spec.layers(), _stage)}
    cells: list[tuple[Cell, ...]] = [("input", shape_text(network.input_shape), "", "", "", "", "")]
    for row in rows:
        share = _macs(row) / everything if everything else 0.0
        cells.append(
            (
                row.name,
                shape_text(row.output),
                contents(stages[row.name]),
                _short(row.binary_macs),
                _short(row.quantized_macs),
                _short(row.float_macs),
                "#" * round(share * BAR),
            )
        )
    total = network.count.total
    ops = MELIUS.derive(total).ops
    assert ops is not None
    return Table(
        f"{network.name} ({network.spec.archid}), family {network.spec.family}",
        (
            Column("stage", numeric=False),
            Column("output", numeric=False),
            Column("layers", numeric=False),
            Column("binary"),
            Column("n-bit", optional=not total.quantized_macs),
            Column("float"),
            Column("share of MACs", numeric=False),
        ),
        tuple(cells),
        lines=(
            f"{format_count(ops)} OPs   {format_count(total.params)} params   {total.size_bytes / 2**20:.2f} MiB"
            "   (meliuscli count has the exact figures)",
        ),
    )


def contents(layers: Iterable[Layer]) -> str:
    """``4 blocks: 8 binary 3x3`` for a stage's convolutions and linear layers, in the order of their first."""
    layers = list(layers)
    blocks = len({layer.name.split(".")[1] for layer in layers if ".block" in layer.name})
    kinds: dict[str, int] = {}
    for layer in layers:
        if layer.kind in ("conv", "linear"):
            kinds[_describe(layer)] = kinds.get(_describe(layer), 0) + 1
    listed = ", ".join(f"{n} {what}" if n > 1 else what for what, n in kinds.items())
    return f"{blocks} block{'s' * (blocks > 1)}: {listed}" if blocks else listed


def _describe(layer: Layer) -> str:
    shape = "linear" if layer.kind == "linear" else f"{layer.kernel}x{layer.kernel}"
    stride = f"/{layer.stride}" if layer.stride > 1 else ""
    if layer.groups > 1:
        shape = f"depthwise {shape}" if layer.groups == layer.in_channels else f"{shape} in {layer.groups} groups"
    bits = {(1, 1): "binary ", (32, 32): ""}.get(
        (layer.weight_bits, layer.activation_bits), f"{layer.weight_bits}/{layer.activation_bits}-bit "
    )
    return f"{bits}{shape}{stride}"


def _stage(layer: Layer) -> str:
    return layer.name.partition(".")[0]


def _macs(row: Count) -> int:
    return sum(n for _, n in row.macs)


def _short(macs: int) -> str:
    return format_count(macs) if macs else ""
