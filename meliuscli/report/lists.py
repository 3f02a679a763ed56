"""What there is to name: networks, search spaces, data sets, conventions."""

from __future__ import annotations

from collections.abc import Callable

from meliuscli.arch.published import published_for
from meliuscli.arch.zoo import arch_names, load_name
from meliuscli.counting.analytic import count_spec
from meliuscli.counting.conventions import CONVENTIONS, MELIUS
from meliuscli.data.names import DATASETS
from meliuscli.report.tables import Cell, Column, Table
from meliuscli.search.files import space_names, space_purpose
from meliuscli.units import format_count, format_figure


def _archs() -> list[dict[str, Cell]]:
    records: list[dict[str, Cell]] = []
    for name in arch_names():
        spec = load_name(name)
        total = count_spec(spec).total
        top1 = next((float(row.top1) for row in published_for(spec) if row.top1), None)
        records.append(
            {
                "name": name,
                "family": spec.family,
                "archid": spec.archid,
                "ops": MELIUS.derive(total).ops,
                "params": total.params,
                "size_bytes": total.size_bytes,
                "published_top1": top1,
            }
        )
    return records


def _spaces() -> list[dict[str, Cell]]:
    return [{"name": name, "purpose": space_purpose(name)} for name in space_names()]


def _datasets() -> list[dict[str, Cell]]:
    return [{"name": name, "what": what} for name, what in DATASETS.items()]


def _conventions() -> list[dict[str, Cell]]:
    return [{"name": rule.name, "source": rule.paper} for rule in CONVENTIONS.values()]


LISTS: dict[str, Callable[[], list[dict[str, Cell]]]] = {
    "archs": _archs,
    "spaces": _spaces,
    "datasets": _datasets,
    "conventions": _conventions,
}
_TITLES = {
    "archs": "Networks (--arch); OPs by MeliusNet's rule, top-1 as published for ImageNet-1k",
    "spaces": "Search spaces (search --space)",
    "datasets": "Data sets (train --dataset)",
    "conventions": "Conventions (--convention; meliuscli explain conventions)",
}


def list_table(kind: str) -> Table:
    """A list for people; its CSV and JSON hold the records."""
    records = LISTS[kind]()
    if kind == "archs":
        texts, numbers = ("network", "family"), ("OPs", "params", "MiB", "top-1")
        columns = (*(Column(heading, numeric=False) for heading in texts), *map(Column, numbers))
        rows: tuple[tuple[Cell, ...], ...] = tuple(map(_arch_cells, records))
    else:
        columns = tuple(Column(heading, numeric=False) for heading in records[0])
        rows = tuple(tuple(record.values()) for record in records)
    return Table(_TITLES[kind], columns, rows, records=tuple(records))


def _arch_cells(record: dict[str, Cell]) -> tuple[Cell, ...]:
    ops, params, size = (record[key] for key in ("ops", "params", "size_bytes"))
    assert isinstance(ops, int | float)
    assert isinstance(params, int)
    assert isinstance(size, int)
    numbers = (format_count(ops), format_count(params), format_figure(size / 2**20))
    top1 = record["published_top1"]
    return (record["name"], record["family"], *numbers, "" if top1 is None else f"{top1:.1f}")
