"""Networks side by side, with published figures beside our counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from meliuscli.arch.published import Published
from meliuscli.counting.conventions import CONVENTIONS, Convention
from meliuscli.report.answers import Answer
from meliuscli.report.count import warnings
from meliuscli.report.count_value import count_object
from meliuscli.report.counted import Counted, View, convention_notes, shape_text
from meliuscli.report.predict import believed_object
from meliuscli.report.published import best_published, published_object
from meliuscli.report.tables import Cell, Column, Table
from meliuscli.units import format_count, format_figure


def compare_answer(networks: Sequence[Counted], view: View) -> Answer:
    """Networks side by side."""
    return Answer(
        (compare_table(networks, view),),
        lambda: {"networks": [_object(network, view) for network in networks]},
    )


def _object(network: Counted, view: View) -> dict[str, Any]:
    return {
        **count_object(network, "stage", view, None),
        "published": list(map(published_object, network.published)),
        "believed": believed_object(network),
        "run": None if network.run is None else network.run.fields(),
    }


def compare_table(networks: Sequence[Counted], view: View) -> Table:
    """Networks side by side, each cost with its ratio to the first, and what is published beside it."""
    records = _with_ratios([_record(network, view) for network in networks])
    has_other = any(record["quantized_macs"] for record in records)
    has_memory = any(record["memory_order"] for record in records)
    has_runs = any(network.run for network in networks)
    unit = view.convention.unit
    columns = (
        Column("network", numeric=False),
        Column("BOPs"),
        *([Column("n-bit")] if has_other else []),
        Column("FLOPs"),
        *([Column(unit), Column("x", optional=1)] if unit else []),
        Column("MiB"),
        Column("x", optional=1),
        *((Column("RAM KiB", optional=1), Column("flash KiB", optional=1)) if has_memory else ()),
        Column("pub.OPs"),
        Column("pub.MiB", optional=2),
        Column("top-1"),
        Column("top-5", optional=2),
        *([Column("run top-1")] if has_runs else []),
    )
    shapes = dict.fromkeys(shape_text(network.input_shape) for network in networks)
    rows = tuple(
        (*_compare_cells(network, record, view, has_other, has_memory), *_run_cells(network, has_runs))
        for network, record in zip(networks, records, strict=True)
    )
    return Table(
        f"Networks compared at {' and '.join(shapes)}",
        columns,
        rows,
        notes=_compare_notes(networks, view, has_other),
        lines=tuple(compare_warnings(networks, view)),
        records=tuple(records),
    )


def compare_warnings(networks: Sequence[Counted], view: View) -> list[str]:
    """Why the counts of modules of one's own may be wrong."""
    return [f"{network.name}: {warning}" for network in networks for warning in warnings(network, view)]


def _record(network: Counted, view: View) -> dict[str, Cell]:
    """A row of the CSV: exact values."""
    total = network.count.total
    derived = view.convention.derive(total, view.float_bits)
    published, memory = best_published(network.published), network.memory(view.storage)
    return {
        "network": network.name,
        "archid": None if network.spec is None else network.spec.archid,
        "bops": derived.bops,
        "quantized_macs": derived.quantized,
        "flops": derived.flops,
        "ops": derived.ops,
        "params": total.params,
        "size_bytes": total.size_bytes,
        "ram_bytes": None if memory is None else memory.ram_bytes,
        "flash_bytes": None if memory is None else memory.flash_bytes,
        "memory_order": None if memory is None else memory.order,
        **{f"published_{key}": None if row is None else getattr(row, key) for key, row in published.items()},
        **{f"published_{key}_source": _source(published[key]) for key in ("ops", "size_mib", "top1")},
        "published_ops_convention": None if published["ops"] is None else published["ops"].convention,
        "published_ops_agrees": None if published["ops"] is None else "ops" not in published["ops"].disputed,
        **{f"run_{key}": getattr(network.run, key, None) for key in ("dataset", "n", "top1", "spread")},
    }


def _source(row: Published | None) -> str | None:
    return None if row is None else row.source


def _with_ratios(records: list[dict[str, Cell]]) -> list[dict[str, Cell]]:
    for key in ("ops", "size_bytes"):
        first = records[0][key]
        for record in records:
            value = record[key]
            known = isinstance(first, int | float) and isinstance(value, int | float) and first > 0
            record[f"{key}_ratio"] = value / first if known else None  # type: ignore[operator]
    return records


def _compare_cells(
    network: Counted, record: Mapping[str, Cell], view: View, has_other: bool, has_memory: bool
) -> tuple[Cell, ...]:
    published = best_published(network.published)
    size = record["size_bytes"]
    return (
        network.name,
        _short(record["bops"]),
        *([_short(record["quantized_macs"])] if has_other else []),
        _short(record["flops"]),
        *([_short(record["ops"]), _ratio(record["ops_ratio"])] if view.convention.unit else []),
        format_figure(size / 2**20) if isinstance(size, int) else "",
        _ratio(record["size_bytes_ratio"]),
        *(map(_kib, (record["ram_bytes"], record["flash_bytes"]), 2 * [record["memory_order"]]) if has_memory else ()),
        _published_cell(published, "ops", view.convention),
        _published_cell(published, "size_mib", view.convention),
        record["published_top1"],
        record["published_top5"],
    )


def _kib(size: Cell, order: Cell) -> str:
    """With a mark where it is an estimate."""
    return f"{format_figure(size / 2**10)}{'' if order == 'c' else ESTIMATE}" if isinstance(size, int) else ""


ESTIMATE = "~"


def _run_cells(network: Counted, has_runs: bool) -> tuple[Cell, ...]:
    if not has_runs:
        return ()
    return ("" if network.run is None else network.run.label,)


def _short(value: Cell) -> str:
    return format_count(value) if isinstance(value, int | float) else ""


def _ratio(value: Cell) -> str:
    return format_figure(value) if isinstance(value, int | float) else ""


def _published_cell(best: Mapping[str, Published | None], key: str, convention: Convention) -> str:
    """The figure as printed; ``*``: by another convention than this table's, ``!``: not what we count, ``+``: not of
    the accuracy's source."""
    row, accurate = best[key], best["top1"]
    if row is None:
        return ""
    printed, rule = getattr(row, key), CONVENTIONS[row.convention]
    if key in row.disputed:
        mark = "!"
    elif key == "ops" and rule.unit not in ("OPs", convention.unit):
        mark = f" {rule.unit}"
    elif key == "ops" and not rule.same_total(convention):
        mark = "*"
    else:
        mark = ""
    other = OTHER_SOURCE if accurate is not None and accurate.source != row.source else ""
    return f"{format_count(float(printed)) if key == 'ops' else printed}{mark}{other}"


OTHER_SOURCE = "+"


def _compare_notes(networks: Sequence[Counted], view: View, has_other: bool) -> tuple[str, ...]:
    shown = [best_published(network.published) for network in networks]
    rows = [row for best in shown for row in best.values() if row is not None]
    convention = view.convention
    notes = [
        f"convention {convention.name}: {convention.legend}; x: ratio to {networks[0].name}",
        *convention_notes(networks, convention),
        view.size_legend,
    ]
    orders = {memory.order for one in networks if (memory := one.memory(view.storage)) is not None}
    if orders:
        marked = f"; {ESTIMATE} an estimate, of what no export writes as C" if "layers" in orders else ""
        notes.append(f"RAM, flash: of a device, KiB = 2^10 bytes (meliuscli explain memory){marked}")
    if has_other:
        notes.append("n-bit: MACs of 2 to 8 bits; w*a/64 of an operation each where the convention has OPs")
    cells = "".join(_published_cell(best, key, convention) for best in shown for key in ("ops", "size_mib"))
    if "*" in cells:
        notes.append("* counted by another convention, under which our count agrees (meliuscli show NETWORK)")
    if "E" in cells:
        notes.append("ACE: PokeBNN's unit, weight bits times activation bits a MAC (--convention ace)")
    if "!" in cells:
        notes.append("! differs from our count under the source's own convention: meliuscli explain contradictions")
    if OTHER_SOURCE in cells:
        notes.append(
            f"{OTHER_SOURCE} not from the source of the accuracy (meliuscli show NETWORK; --format csv names both)"
        )
    if rows:
        sources = list(dict.fromkeys(row.source for row in rows))
        named = "; ".join(sources) if len(sources) <= 6 else "their sources: meliuscli show NETWORK"
        notes.append(f"pub.OPs, pub.MiB, top-1, top-5 (%) as published for ImageNet-1k: {named}")
    if runs := [network.run.sentence for network in networks if network.run is not None]:
        notes.append(f"run top-1: mean on the test images (%) ± sample deviation over n seeds: {'; '.join(runs)}")
    notes.append("OPs are a theory of cost, not a measured speed")
    return tuple(notes)
