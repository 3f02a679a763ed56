"""A network drawn: its stages from input to classes, with what is in them and where the work is."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from meliuscli.arch.plan import STEM, Layer
from meliuscli.counting.conventions import MELIUS
from meliuscli.counting.counts import Count
from meliuscli.report.answers import Answer
from meliuscli.report.count import count_table
from meliuscli.report.count_value import count_object
from meliuscli.report.counted import Counted, View, shape_text
from meliuscli.report.published import published_object, published_table
from meliuscli.report.tables import Cell, Column, Table, to_csv
from meliuscli.units import format_count, format_mib

BAR = 12
"""Characters of a bar of all MACs."""


def network_answer(network: Counted, view: View) -> Answer:
    """A network drawn, with its published figures and its TOML; as CSV its counts."""
    spec, published = network.spec, network.published
    assert spec is not None
    return Answer(
        (drawing_table(network), *([published_table(network)] if published else [])),
        lambda: {
            **count_object(network, "stage", view, None),
            "published": list(map(published_object, published)),
            "spec": spec.model_dump(mode="json"),
        },
        csv=lambda: to_csv(count_table(network, "stage", view)),
        endings={"table": f"\n{spec.to_toml()}"},
    )


def drawing_table(network: Counted) -> Table:
    """One row a stage: the map that leaves it, its blocks and convolutions, its MACs, and a bar of
    their share of all."""
    assert network.spec is not None
    rows = network.count.rows("stage")
    everything = sum(_macs(row) for row in rows)
    stages = {name: list(layers) for name, layers in groupby(network.spec.layers(), lambda layer: layer.stage)}
    total = network.count.total
    n_bit = total.quantized_macs > 0
    cells: list[tuple[Cell, ...]] = [("input", shape_text(network.input_shape), *[""] * (5 if n_bit else 4))]
    for row in rows:
        share = _macs(row) / everything if everything else 0.0
        macs = (row.binary_macs, *([row.quantized_macs] if n_bit else []), row.float_macs)
        bar = "#" * round(share * BAR)
        cells.append((row.name, shape_text(row.output), contents(stages[row.name]), *map(_short, macs), bar))
    ops = MELIUS.derive(total).ops
    assert ops is not None
    return Table(
        f"{network.name} ({network.spec.archid}), family {network.spec.family}",
        (
            Column("stage", numeric=False),
            Column("output", numeric=False),
            Column("layers", numeric=False),
            Column("binary"),
            *([Column("n-bit")] if n_bit else []),
            Column("float"),
            Column("share", numeric=False),
        ),
        tuple(cells),
        lines=(
            f"{format_count(ops)} OPs   {format_count(total.params)} params   {format_mib(total.size_bytes)}"
            "   (meliuscli count has the exact figures)",
        ),
    )


def contents(layers: Iterable[Layer]) -> str:
    """``4 blocks: 8 binary 3x3`` for a stage's convolutions and linear layers, in the order of their first."""
    layers = list(layers)
    blocks = len({layer.block for layer in layers if layer.block})
    kinds: dict[str, int] = {}
    for layer in layers:
        if layer.kind in ("conv", "linear"):
            what = _describe(layer, with_stride=layer.stage == STEM)
            kinds[what] = kinds.get(what, 0) + 1
    listed = ", ".join(f"{n} {what}" if n > 1 else what for what, n in kinds.items())
    return f"{blocks} block{'s' * (blocks > 1)}: {listed}" if blocks else listed


def _describe(layer: Layer, with_stride: bool) -> str:
    shape = "linear" if layer.kind == "linear" else f"{layer.kernel}x{layer.kernel}"
    stride = f"/{layer.stride}" if layer.stride > 1 and with_stride else ""
    if layer.groups > 1:
        shape = f"depthwise {shape}" if layer.groups == layer.in_channels else f"{shape} in {layer.groups} groups"
    bits = {(1, 1): "binary ", (32, 32): ""}.get(
        (layer.weight_bits, layer.activation_bits), f"{layer.weight_bits}/{layer.activation_bits}-bit "
    )
    return f"{bits}{shape}{stride}"


def _macs(row: Count) -> int:
    return sum(n for _, n in row.macs)


def _short(macs: int) -> str:
    return format_count(macs) if macs else ""
