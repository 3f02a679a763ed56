"""Counts as tables and as the JSON object that other programs read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from meliuscli.arch.published import Published, published_for
from meliuscli.arch.zoo import NamedArch
from meliuscli.counting.conventions import FULL, MELIUS, SIZE_LEGEND, Convention
from meliuscli.counting.counts import By, Count, NetworkCount
from meliuscli.report.tables import Cell, Column, Table
from meliuscli.units import format_count, format_mib

_FIELDS = ("binary_macs", "float_macs", "params", "binary_params", "size_bytes")


def count_object(
    arch: NamedArch, count: NetworkCount, by: By, convention: Convention, verified: bool | None
) -> dict[str, Any]:
    """The JSON of ``count`` (and one entry of that of ``compare``): a frozen interface.

    ``rows`` and ``total`` are raw integers, every convolution and linear MAC whatever the convention; ``derived`` is
    the total under the convention."""
    derived = convention.derive(count.total)
    return {
        "arch": arch.name,
        "archid": arch.spec.archid,
        "input": list(arch.spec.input_shape),
        "convention": convention.name,
        "rows": [_row_object(row) for row in count.rows(by)],
        "total": _row_object(count.total),
        "derived": {"bops": derived.bops, "flops": derived.flops, "ops": derived.ops},
        "verified": verified,
    }


def _row_object(row: Count) -> dict[str, Any]:
    return {"name": row.name, "kind": row.kind, "output": list(row.output), **{f: getattr(row, f) for f in _FIELDS}}


def count_table(arch: NamedArch, count: NetworkCount, by: By, convention: Convention) -> Table:
    """One row a part and the exact sum; MACs as they are, whatever the convention."""
    return Table(
        f"{arch.name} ({arch.spec.archid}) at {_shape(arch.spec.input_shape)}",
        (
            Column("part", numeric=False),
            Column("output", numeric=False),
            Column("binary MACs"),
            Column("float MACs"),
            Column("binary weights"),
            Column("float params"),
            Column("bytes"),
        ),
        tuple(_cells(row) for row in count.rows(by)),
        total=_cells(count.total),
        lines=_summary_lines(count, convention),
        notes=(f"convention {convention.name}: {convention.legend}", SIZE_LEGEND),
    )


def _cells(row: Count) -> tuple[Cell, ...]:
    counts = (row.binary_macs, row.float_macs, row.binary_params, row.float_params, row.size_bytes)
    return (row.name, _shape(row.output), *counts)


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _summary_lines(count: NetworkCount, convention: Convention) -> tuple[str, ...]:
    """The total under a convention."""
    total, derived = count.total, convention.derive(count.total)
    all_macs = total.binary_macs + total.float_macs
    share = 100 * total.binary_macs / all_macs if all_macs else 0.0
    weights = 100 * total.binary_params / total.params if total.params else 0.0
    return (
        f"BOPs {derived.bops:,}   FLOPs {derived.flops:,}   OPs {_exact(derived.ops)}",
        f"params {total.params:,} ({total.binary_params:,} binary)   size {format_mib(total.size_bytes)}"
        f"   binary: {share:.1f} % of MACs, {weights:.1f} % of weights",
    )


def _exact(ops: float) -> str:
    return f"{ops:,}" if isinstance(ops, int) else f"{ops:,.2f}"


def compare_table(archs: Sequence[tuple[NamedArch, NetworkCount]], convention: Convention) -> Table:
    """Networks side by side, each cost with its ratio to the first, and what is published beside it."""
    first = archs[0][1]
    shapes = dict.fromkeys(_shape(arch.spec.input_shape) for arch, _ in archs)
    rows = []
    for arch, count in archs:
        total, derived = count.total, convention.derive(count.total)
        other = FULL if convention is MELIUS else MELIUS
        published = published_for(arch.spec)
        rows.append(
            (
                arch.name,
                format_count(derived.bops),
                format_count(derived.flops),
                format_count(derived.ops),
                _ratio(derived.ops, convention.derive(first.total).ops),
                format_count(other.derive(total).ops),
                f"{total.size_bytes / 2**20:.2f}",
                _ratio(total.size_bytes, first.total.size_bytes),
                *_published_cells(published),
            )
        )
    return Table(
        f"Networks compared at {' and '.join(shapes)}",
        (
            Column("network", numeric=False),
            Column("BOPs"),
            Column("FLOPs"),
            Column("OPs"),
            Column("x"),
            Column("OPs+fc" if convention is MELIUS else "OPs-fc"),
            Column("MiB"),
            Column("x"),
            Column("pub.OPs"),
            Column("pub.MiB"),
            Column("top-1"),
            Column("top-5"),
        ),
        tuple(rows),
        notes=_compare_notes([arch for arch, _ in archs], convention),
    )


def _ratio(value: float, reference: float) -> str:
    return f"{value / reference:.2f}" if reference else ""


def _published_cells(row: Published | None) -> tuple[Cell, ...]:
    if row is None:
        return ("", "", "", "")
    mark = "*" if row.classifier else ""
    ops = f"{format_count(float(row.ops))}{mark}" if row.ops else ""
    return (ops, row.size_mib, row.top1, row.top5)


def _compare_notes(archs: Sequence[NamedArch], convention: Convention) -> tuple[str, ...]:
    rows = [row for arch in archs if (row := published_for(arch.spec)) is not None]
    notes = [
        f"Our counts: {convention.legend}; x = ratio to {archs[0].name}.",
        f"{SIZE_LEGEND}.",
        "OPs are a theory of cost (64 binary MACs an operation), not a measured speed.",
    ]
    if convention is MELIUS:
        notes.insert(1, "OPs+fc adds the classifier: compare it with published figures marked *, which include it.")
    else:
        notes.insert(1, "OPs-fc leaves the classifier out: compare it with published figures without a *.")
    if rows:
        sources = "; ".join(dict.fromkeys(row.source for row in rows))
        notes.append(f"pub.OPs, pub.MiB, top-1 and top-5 (%) as published for ImageNet-1k: {sources}.")
    return tuple(notes)
