"""Published figures as tables and JSON, held against our counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from meliuscli.arch.published import COUNTS, Published
from meliuscli.counting.agreement import disagreements
from meliuscli.report.counted import Counted
from meliuscli.report.tables import Cell, Column, Table

WHOLE = ("bops", "flops", "ops", "params")


def published_object(row: Published) -> dict[str, Any]:
    """A published row as JSON: its figures as numbers and as printed (``4.62e9``), whose digits say how exact they are, and
    the columns that differ from our count with the reason's key."""
    printed = {key: getattr(row, key) for key in (*COUNTS, "top1", "top5")}
    return {
        **{key: (_count if key in WHOLE else _decimal)(text) for key, text in printed.items()},
        "printed": {key: text for key, text in printed.items() if text},
        "convention": row.convention,
        "bn_params": row.bn_params,
        "confidence": row.confidence,
        "disputed": dict(row.disputed),
        "source": row.source,
    }


def _count(text: str) -> int | None:
    """``4.62e9`` as a whole number."""
    return round(float(text)) if text else None


def _decimal(text: str) -> float | None:
    return float(text) if text else None


def best_published(rows: Sequence[Published]) -> Mapping[str, Published | None]:
    """For each figure the row to show: both accuracies of the first row that states one, OPs and size of the same row,
    else of the same source, else of the first that states them."""
    accurate = next((row for row in rows if row.top1), None)
    source = "" if accurate is None else accurate.source
    order = sorted(rows, key=lambda row: 0 if row is accurate else 1 if row.source == source else 2)
    counts = {key: next((row for row in order if getattr(row, key)), None) for key in ("ops", "size_mib")}
    return {**counts, "top1": accurate, "top5": accurate}


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
