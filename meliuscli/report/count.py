"""A network's counts as a table, and what is to be said of them."""

from __future__ import annotations

from meliuscli.counting.counts import FLOAT_BITS, By, Count
from meliuscli.counting.memory import Memory
from meliuscli.counting.memory_parts import Alive
from meliuscli.report.answers import Answer
from meliuscli.report.count_value import count_object
from meliuscli.report.counted import Counted, View, convention_notes, shape_text, shown_rows
from meliuscli.report.own import doubts, left_out, own_lines
from meliuscli.report.tables import Cell, Column, Table
from meliuscli.units import format_mib

Parts = dict[str, tuple[Alive, int]]
"""What is alive in a part, and the bytes of its constants, by its name."""


def count_answer(network: Counted, by: By, view: View, verified: bool | None) -> Answer:
    """A network's counts."""
    return Answer((count_table(network, by, view),), lambda: count_object(network, by, view, verified))


def count_table(network: Counted, by: By, view: View) -> Table:
    """One row a part and the exact sum; MACs as they are, whatever the convention."""
    total, memory = network.count.total, network.memory(view.storage)
    parts = {} if memory is None else memory.by_part(by)
    has_other_macs, has_other_weights = total.quantized_macs > 0, _other_weights(total) > 0

    def cells(row: Count) -> tuple[Cell, ...]:
        macs = (row.binary_macs, *([row.quantized_macs] if has_other_macs else []), row.float_macs)
        others = [_other_weights(row)] if has_other_weights else []
        weights = (row.binary_params, *others, row.float_params, row.size_bytes)
        device = _device_cells(row, memory, parts) if memory is not None and parts else ()
        return (row.name, shape_text(row.output), *macs, *weights, *device)

    heads = ("binary MACs", *(["n-bit MACs"] if has_other_macs else []), "float MACs", "binary weights")
    heads = (*heads, *(["n-bit weights"] if has_other_weights else []), "float params", "bytes")
    archid = "" if network.spec is None else f" ({network.spec.archid})"
    return Table(
        f"{network.name}{archid} at {shape_text(network.input_shape)}",
        (
            Column("part", numeric=False),
            Column("output", numeric=False, optional=2),
            *map(Column, heads),
            *((Column("RAM", optional=1), Column("flash", optional=1)) if parts else ()),
        ),
        tuple(cells(row) for row in shown_rows(network.count, by)),
        total=cells(total),
        sums=(*_summary_lines(total, view), *_memory_lines(network, view)),
        lines=tuple(_findings(network, view)),
        records=tuple(
            {**_csv_record(row, view), **_device_record(row, memory, parts)}
            for row in (*shown_rows(network.count, by), total)
        ),
        notes=(
            f"convention {view.convention.name}: {view.convention.legend}",
            *convention_notes([network], view.convention),
            view.size_legend + ("" if network.own is None else "; floats of 16 and 64 bits at theirs"),
            *([] if memory is None else [memory.legend]),
        ),
    )


def _device_cells(row: Count, memory: Memory, parts: Parts) -> tuple[int, int]:
    """RAM and flash of a row; the total of RAM is the largest."""
    if row.kind == "total":
        return memory.ram_bytes, memory.flash_bytes
    alive, flash = parts[row.name]
    return alive.total, flash


def _device_record(row: Count, memory: Memory | None, parts: Parts) -> dict[str, Cell]:
    """The same in the CSV, where layers and modules of one's own have no values."""
    cells = _device_cells(row, memory, parts) if memory is not None and parts else (None, None)
    return dict(zip(("RAM", "flash"), cells, strict=True))


def _csv_record(row: Count, view: View) -> dict[str, Cell]:
    """A row in raw numbers, and what it is under the convention."""
    derived = view.convention.derive(row, view.float_bits)
    return {
        "part": row.name,
        "kind": row.kind,
        "output": shape_text(row.output),
        "binary MACs": row.binary_macs,
        "n-bit MACs": row.quantized_macs,
        "float MACs": row.float_macs,
        "binary weights": row.binary_params,
        "n-bit weights": _other_weights(row),
        "float params": row.float_params,
        "bytes": row.size_bytes,
        "BOPs": derived.bops,
        "FLOPs": derived.flops,
        view.convention.unit or "OPs": derived.ops,
    }


def _findings(network: Counted, view: View) -> list[str]:
    """What is to be said of a module of one's own: what the convention leaves out, what was recognised, verdicts."""
    if network.own is None:
        return []
    return [*left_out(network.count.total, view.convention), *own_lines(network.own)]


def warnings(network: Counted, view: View) -> list[str]:
    """Those of the findings that no format may swallow: the count may be wrong, or not what it seems."""
    if network.spec is not None:
        return []
    said = [] if network.own is None else doubts(network.own)
    said += [] if network.run is None else [f"doubt: {line}" for line in network.run.doubts]
    return [*left_out(network.count.total, view.convention), *said]


def _other_weights(row: Count) -> int:
    """Weights of neither one bit nor float."""
    return row.params - row.binary_params - row.float_params


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


def _memory_lines(network: Counted, view: View) -> list[str]:
    """RAM at its peak, and flash; nothing of a module of one's own. Where the size is of floats of other bits, it says
    those of the memory, or both would be read as one storage."""
    memory = network.memory(view.storage)
    if memory is None:
        return []
    peak, bits = memory.peak, 8 if memory.is_int8 else FLOAT_BITS
    said = "" if bits == view.storage.float_bits else f"   (both with {memory.floats})"
    named = {"floats": peak.float_bytes, "integers": peak.integer_bytes, "signs": peak.sign_bytes}
    kinds = ", ".join(f"{100 * size / peak.total:.0f} % {name}" for name, size in named.items() if size)
    about = "" if memory.is_c else "about "
    return [
        f"RAM {about}{peak.total:,} bytes in {peak.part} ({kinds})   flash {about}{memory.flash_bytes:,} bytes{said}"
    ]


def _exact(ops: float) -> str:
    return f"{ops:,}" if isinstance(ops, int) else f"{ops:,.2f}"
