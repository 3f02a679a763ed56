"""What is to be said beside the count of a user's own module: what was recognised, and what fvcore cannot see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meliuscli.report.tables import Column, Table

if TYPE_CHECKING:
    from meliuscli.counting.own import OwnCount


def own_object(own: OwnCount) -> dict[str, Any]:
    """Keys that the JSON of ``count`` has for a module of one's own."""
    return {
        "recognised": dict(own.recognised),
        "verdicts": [
            {
                "what": verdict.what,
                "times": verdict.times,
                "modules": list(verdict.modules),
                "verdict": verdict.verdict,
                "doubt": verdict.doubt,
            }
            for verdict in own.verdicts
        ],
    }


def own_tables(own: OwnCount) -> list[Table]:
    """Why layers count at their bits, a row a reason; and what was found, doubts first."""
    tables: list[Table] = []
    if own.recognised:
        layers: dict[str, list[str]] = {}
        for name, reason in own.recognised.items():
            layers.setdefault(reason, []).append(name)
        reasons = tuple((reason, len(names), _first(names)) for reason, names in layers.items())
        columns = (*_texts("recognised"), Column("layers"), *_texts("which"))
        tables.append(Table("Layers that are not float", columns, reasons))
    if own.verdicts:
        found = tuple(
            (f"{'! ' if verdict.doubt else ''}{verdict.what}", verdict.times, verdict.where, verdict.verdict)
            for verdict in own.verdicts
        )
        columns = (*_texts("what"), Column("times"), *_texts("where", "verdict"))
        notes = ("! the count may be wrong because of it",) if any(v.doubt for v in own.verdicts) else ()
        tables.append(
            Table(
                "What fvcore's trace does not see, or sees otherwise than torch executes it",
                columns,
                found,
                notes=notes,
            )
        )
    return tables


def _texts(*headings: str) -> tuple[Column, ...]:
    return tuple(Column(heading, numeric=False) for heading in headings)


def _first(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
