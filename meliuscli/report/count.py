"""Counts as tables and as the JSON object that other programs read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from meliuscli.arch.published import COUNTS, Published, published_for
from meliuscli.arch.spec import ArchSpec
from meliuscli.counting.agreement import disagreements
from meliuscli.counting.conventions import CONVENTIONS, Convention
from meliuscli.counting.counts import By, Count, NetworkCount, Storage
from meliuscli.report.tables import Cell, Column, Table
from meliuscli.units import format_count, format_mib

_FIELDS = ("binary_macs", "float_macs", "quantized_macs", "params", "binary_params", "size_bytes")


@dataclass(frozen=True, slots=True)
class Counted:
    """A network by name with its count; ``spec`` is None for a module of the user's own."""

    name: str
    spec: ArchSpec | None
    input_shape: tuple[int, ...]
    count: NetworkCount

    @property
    def published(self) -> tuple[Published, ...]:
        return () if self.spec is None else published_for(self.spec)


@dataclass(frozen=True, slots=True)
class View:
    """How counts are shown: the convention, the storage of parameters, and the bits that price float MACs (None: the
    convention's own)."""

    convention: Convention
    storage: Storage = Storage()  # noqa: RUF009
    float_bits: int | None = None

    @property
    def size_legend(self) -> str:
        floats, values = self.storage.float_bits, self.storage.bn_params
        return (
            f"size: weights at their bits, others {floats} bits, {values} value{'s' * (values != 1)} a batch-norm"
            " channel; MiB = 2^20 bytes"
        )


def count_object(network: Counted, by: By, view: View, verified: bool | None) -> dict[str, Any]:
    """The JSON of ``count`` (and, with ``published``, one entry of that of ``compare``): a frozen interface.

    ``rows`` and ``total`` are raw integers, every convolution and linear MAC whatever the convention; ``derived`` is
    the total under the convention."""
    derived = view.convention.derive(network.count.total, view.float_bits)
    return {
        "arch": network.name,
        "archid": None if network.spec is None else network.spec.archid,
        "input": list(network.input_shape),
        "convention": view.convention.name,
        "rows": [_row_object(row) for row in _shown(network.count, by)],
        "total": _row_object(network.count.total),
        "derived": {
            "bops": derived.bops,
            "flops": derived.flops,
            "quantized_macs": derived.quantized,
            "ops": derived.ops,
        },
        "verified": verified,
    }


def _row_object(row: Count) -> dict[str, Any]:
    return {
        "name": row.name,
        "kind": row.kind,
        "output": list(row.output),
        **{f: getattr(row, f) for f in _FIELDS},
        "macs": {f"{op.layer} {op.bits}": n for op, n in row.macs},
        "weights": {str(bits): n for bits, n in row.weights},
    }


def published_object(row: Published) -> dict[str, Any]:
    """A published row as JSON: figures as printed, and the columns that differ from our count with the reason's key."""
    figures = {key: getattr(row, key) or None for key in (*COUNTS, "top1", "top5")}
    return {
        **figures,
        "convention": row.convention,
        "bn_params": row.bn_params,
        "confidence": row.confidence,
        "disputed": dict(row.disputed),
        "source": row.source,
    }


def count_table(network: Counted, by: By, view: View) -> Table:
    """One row a part and the exact sum; MACs as they are, whatever the convention."""
    total = network.count.total
    has_other_macs, has_other_weights = total.quantized_macs > 0, _other_weights(total) > 0

    def cells(row: Count) -> tuple[Cell, ...]:
        macs = (row.binary_macs, *([row.quantized_macs] if has_other_macs else []), row.float_macs)
        others = [_other_weights(row)] if has_other_weights else []
        return (row.name, shape_text(row.output), *macs, row.binary_params, *others, row.float_params, row.size_bytes)

    heads = ("binary MACs", *(["n-bit MACs"] if has_other_macs else []), "float MACs", "binary weights")
    heads = (*heads, *(["n-bit weights"] if has_other_weights else []), "float params", "bytes")
    archid = "" if network.spec is None else f" ({network.spec.archid})"
    return Table(
        f"{network.name}{archid} at {shape_text(network.input_shape)}",
        (Column("part", numeric=False), Column("output", numeric=False, optional=True), *map(Column, heads)),
        tuple(cells(row) for row in _shown(network.count, by)),
        total=cells(total),
        lines=_summary_lines(total, view),
        notes=(f"convention {view.convention.name}: {view.convention.legend}", view.size_legend),
    )


def _shown(count: NetworkCount, by: By) -> list[Count]:
    """By layer, those that have MACs, parameters or a map of another size; additions and activations go without saying."""
    rows = count.rows(by)
    if by != "layer":
        return list(rows)
    return [row for row in rows if row.macs or row.weights or row.kind.endswith("pool")]


def _other_weights(row: Count) -> int:
    """Weights of neither one bit nor float."""
    return row.params - row.binary_params - row.float_params


def shape_text(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _summary_lines(total: Count, view: View) -> tuple[str, ...]:
    """The total under a convention."""
    derived = view.convention.derive(total, view.float_bits)
    all_macs = sum(n for _, n in total.macs)
    share = 100 * total.binary_macs / all_macs if all_macs else 0.0
    weights = 100 * total.binary_params / total.params if total.params else 0.0
    figures = [f"BOPs {derived.bops:,}", f"FLOPs {derived.flops:,}"]
    by_bits: dict[str, int] = {}
    for op, n in total.macs:
        if not op.is_binary and not op.is_float and (op.layer == "conv" or view.convention.linear):
            by_bits[op.bits] = by_bits.get(op.bits, 0) + n
    figures += [f"{bits}-bit MACs {n:,}" for bits, n in by_bits.items()]
    if derived.ops is not None:
        figures.append(f"{view.convention.unit} {_exact(derived.ops)}")
    return (
        "   ".join(figures),
        f"params {total.params:,} ({total.binary_params:,} binary)   size {format_mib(total.size_bytes)}"
        f"   binary: {share:.1f} % of MACs, {weights:.1f} % of weights",
    )


def _exact(ops: float) -> str:
    return f"{ops:,}" if isinstance(ops, int) else f"{ops:,.2f}"


def compare_table(networks: Sequence[Counted], view: View) -> Table:
    """Networks side by side, each cost with its ratio to the first, and what is published beside it."""
    records = _with_ratios([_record(network, view) for network in networks])
    has_other = any(record["quantized_macs"] for record in records)
    unit = view.convention.unit
    columns = (
        Column("network", numeric=False),
        Column("BOPs"),
        *([Column("n-bit")] if has_other else []),
        Column("FLOPs"),
        *([Column(unit), Column("x")] if unit else []),
        Column("MiB"),
        Column("x"),
        Column("pub.OPs"),
        Column("pub.MiB"),
        Column("top-1"),
        Column("top-5", optional=True),
    )
    shapes = dict.fromkeys(shape_text(network.input_shape) for network in networks)
    rows = tuple(
        _compare_cells(network, record, view, has_other) for network, record in zip(networks, records, strict=True)
    )
    return Table(
        f"Networks compared at {' and '.join(shapes)}",
        columns,
        rows,
        notes=_compare_notes(networks, view, has_other),
        records=tuple(records),
    )


def _record(network: Counted, view: View) -> dict[str, Cell]:
    """A row of the CSV: exact values."""
    total = network.count.total
    derived = view.convention.derive(total, view.float_bits)
    published = best_published(network.published)
    return {
        "network": network.name,
        "archid": None if network.spec is None else network.spec.archid,
        "bops": derived.bops,
        "quantized_macs": derived.quantized,
        "flops": derived.flops,
        "ops": derived.ops,
        "params": total.params,
        "size_bytes": total.size_bytes,
        **{f"published_{key}": None if row is None else getattr(row, key) for key, row in published.items()},
        "published_ops_convention": None if published["ops"] is None else published["ops"].convention,
        "published_ops_agrees": None if published["ops"] is None else "ops" not in published["ops"].disputed,
    }


def _with_ratios(records: list[dict[str, Cell]]) -> list[dict[str, Cell]]:
    for key in ("ops", "size_bytes"):
        first = records[0][key]
        for record in records:
            value = record[key]
            known = isinstance(first, int | float) and isinstance(value, int | float) and first > 0
            record[f"{key}_ratio"] = value / first if known else None  # type: ignore[operator]
    return records


def best_published(rows: Sequence[Published]) -> Mapping[str, Published | None]:
    """For each figure the first row that states it; both accuracies are of one row."""
    best = {key: next((row for row in rows if getattr(row, key)), None) for key in ("ops", "size_mib", "top1")}
    return {**best, "top5": best["top1"]}


def _compare_cells(network: Counted, record: Mapping[str, Cell], view: View, has_other: bool) -> tuple[Cell, ...]:
    published = best_published(network.published)
    size = record["size_bytes"]
    return (
        network.name,
        _short(record["bops"]),
        *([_short(record["quantized_macs"])] if has_other else []),
        _short(record["flops"]),
        *([_short(record["ops"]), _ratio(record["ops_ratio"])] if view.convention.unit else []),
        f"{size / 2**20:.2f}" if isinstance(size, int) else "",
        _ratio(record["size_bytes_ratio"]),
        _published_cell(published["ops"], "ops", view.convention),
        _published_cell(published["size_mib"], "size_mib", view.convention),
        record["published_top1"],
        record["published_top5"],
    )


def _short(value: Cell) -> str:
    return format_count(value) if isinstance(value, int | float) else ""


def _ratio(value: Cell) -> str:
    return f"{value:.2f}" if isinstance(value, int | float) else ""


def _published_cell(row: Published | None, key: str, convention: Convention) -> str:
    """The figure as printed; ``*``: by another convention than this table's, ``!``: not what we count."""
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
    return f"{format_count(float(printed)) if key == 'ops' else printed}{mark}"


def _compare_notes(networks: Sequence[Counted], view: View, has_other: bool) -> tuple[str, ...]:
    shown = [best_published(network.published) for network in networks]
    rows = [row for best in shown for row in best.values() if row is not None]
    convention = view.convention
    notes = [f"convention {convention.name}: {convention.legend}; x: ratio to {networks[0].name}", view.size_legend]
    if has_other:
        notes.append("n-bit: MACs of 2 to 8 bits; w*a/64 of an operation each where the convention has OPs")
    cells = {_published_cell(best[key], key, convention)[-1:] for best in shown for key in ("ops", "size_mib")}
    if "*" in cells:
        notes.append("* counted by another convention, under which our count agrees (meliuscli show NETWORK)")
    if "E" in cells:
        notes.append("ACE: PokeBNN's unit, weight bits times activation bits a MAC (--convention ace)")
    if "!" in cells:
        notes.append("! differs from our count under the source's own convention: meliuscli explain contradictions")
    if rows:
        sources = list(dict.fromkeys(row.source for row in rows))
        named = "; ".join(sources) if len(sources) <= 6 else "their sources: meliuscli show NETWORK"
        notes.append(f"pub.OPs, pub.MiB, top-1, top-5 (%) as published for ImageNet-1k: {named}")
    notes.append("OPs are a theory of cost, not a measured speed")
    return tuple(notes)


def published_table(network: Counted) -> Table:
    """Every published row of a network beside what we count under the row's own rule."""
    rows: list[tuple[Cell, ...]] = []
    for row in network.published:
        differs = disagreements(row)
        cells = [f"{getattr(row, key)}{'!' if key in differs else ''}" for key in COUNTS]
        rows.append((row.source, *cells, row.top1, row.top5, row.convention, row.bn_params))
    heads = ("BOPs", "FLOPs", "OPs", "MiB", "params", "top-1", "top-5")
    return Table(
        f"Published for {network.name} (ImageNet-1k)",
        (
            Column("source", numeric=False),
            *map(Column, heads),
            Column("rule", numeric=False),
            Column("BN"),
        ),
        tuple(rows),
        notes=(
            "rule: the convention the source counts by; BN: values of a batch-norm channel in its params and sizes",
            *(
                ["! differs from our count: meliuscli explain contradictions"]
                if any(map(disagreements, network.published))
                else []
            ),
        ),
    )
