"""Counts as tables and as the JSON object that other programs read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from meliuscli.arch.published import Published, published_for
from meliuscli.arch.spec import ArchSpec
from meliuscli.counting.conventions import Convention, find_convention
from meliuscli.counting.counts import FLOAT_BITS, By, Count, NetworkCount, Storage
from meliuscli.counting.memory import Memory, memory_of
from meliuscli.report.answers import Answer
from meliuscli.report.own import doubts, left_out, own_lines, own_object
from meliuscli.report.recorded import Recorded
from meliuscli.report.tables import Cell, Column, Table
from meliuscli.units import format_mib

if TYPE_CHECKING:
    from meliuscli.counting.foreign import OwnCount

_FIELDS = ("binary_macs", "float_macs", "quantized_macs", "params", "binary_params", "size_bytes")


@dataclass(frozen=True, slots=True)
class Counted:
    """A network by name with its count; ``spec`` is None for a module of the user's own, which has ``own``; what a run
    trained has ``run``."""

    name: str
    spec: ArchSpec | None
    input_shape: tuple[int, ...]
    count: NetworkCount
    own: OwnCount | None = None
    run: Recorded | None = None

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

    def dearest_ops(self, own: OwnCount) -> float | None:
        """The total, were nothing assumed of the bits of a module of one's own that makes it cheaper."""
        return self.convention.derive(own.dearest.total, self.float_bits).ops

    @property
    def size_legend(self) -> str:
        floats, values = self.storage.float_bits, self.storage.bn_params
        return (
            f"size: weights at their bits, others {floats} bits, {values} value{'s' * (values != 1)} a batch-norm"
            " channel; MiB = 2^20 bytes"
        )


def make_view(convention: str, float_bits: int | None, bn_params: int | None) -> View:
    """How counts are shown, by a convention's name; what is None is the convention's own.

    Raises ``BadInputError`` for an unknown convention."""
    rule = find_convention(convention)
    values = rule.bn_params if bn_params is None else bn_params
    return View(rule, Storage(FLOAT_BITS if float_bits is None else float_bits, values), float_bits)


def count_answer(network: Counted, by: By, view: View, verified: bool | None) -> Answer:
    """A network's counts."""
    return Answer((count_table(network, by, view),), lambda: count_object(network, by, view, verified))


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
        "memory": None if network.spec is None else memory_object(memory_of(network.spec, view.storage.float_bits)),
        "verified": verified,
        **({} if network.own is None else own_object(network.own, _assumes_much(network, view))),
    }


_MUCH = 1.05


def _assumes_much(network: Counted, view: View) -> bool:
    """Would the network cost 5 % more, were the doubts true?"""
    assert network.own is not None
    ops = view.convention.derive(network.count.total, view.float_bits).ops
    dearest = view.dearest_ops(network.own)
    if ops is None or dearest is None:
        return network.own.dearest != network.own.count
    return dearest > _MUCH * ops


def _row_object(row: Count) -> dict[str, Any]:
    return {
        "name": row.name,
        "kind": row.kind,
        "output": list(row.output),
        **{f: getattr(row, f) for f in _FIELDS},
        **row.by_bits(),
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
        sums=(*_summary_lines(total, view), *_memory_lines(network, view)),
        lines=tuple(_findings(network, view)),
        records=tuple(_csv_record(row, view) for row in (*_shown(network.count, by), total)),
        notes=(
            f"convention {view.convention.name}: {view.convention.legend}",
            view.size_legend,
            *([] if network.spec is None else [memory_of(network.spec, view.storage.float_bits).legend]),
        ),
    )


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


def _memory_lines(network: Counted, view: View) -> list[str]:
    """RAM at its peak, and flash; nothing of a module of one's own, whose layers have no order."""
    if network.spec is None:
        return []
    memory = memory_of(network.spec, view.storage.float_bits)
    peak = memory.peak
    named = {"floats": peak.float_bytes, "integers": peak.integer_bytes, "signs": peak.sign_bytes}
    kinds = ", ".join(f"{100 * size / peak.total:.0f} % {name}" for name, size in named.items() if size)
    return [f"RAM {peak.total:,} bytes in {peak.part} ({kinds})   flash {memory.flash_bytes:,} bytes"]


def memory_object(memory: Memory) -> dict[str, Any]:
    """The JSON of what a network needs of a device."""
    return {
        "ram_bytes": memory.ram_bytes,
        "flash_bytes": memory.flash_bytes,
        "order": "c" if memory.is_c else "layers",
        "parts": [{**asdict(part), "total_bytes": part.total} for part in memory.parts],
    }


def _exact(ops: float) -> str:
    return f"{ops:,}" if isinstance(ops, int) else f"{ops:,.2f}"
