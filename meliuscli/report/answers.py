"""What a command answers, rendered by one function in every format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from meliuscli.report.tables import Format, Table, to_csv, to_latex, to_markdown, to_text

RENDERERS: dict[Format, Callable[[Table], str]] = {
    "table": to_text,
    "markdown": to_markdown,
    "csv": to_csv,
    "latex": to_latex,
}


SCHEMA_VERSION = 1
"""Of the JSON of all commands: one more where a key goes, changes its meaning or its type. New keys do not change it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Tables for people, and the ``value`` that JSON holds, made when it is asked for. CSV is one table, the first, or what
    ``csv`` makes; ``endings`` are texts below the tables of some formats. ``drawing`` makes a picture of characters for a
    terminal of so many columns, with Unicode or without; it may be empty."""

    tables: tuple[Table, ...]
    value: Callable[[], Mapping[str, object]]
    csv: Callable[[], str] | None = None
    endings: Mapping[Format, str] = field(default_factory=dict)
    drawing: Callable[[int, bool], str] | None = None


def render(answer: Answer, fmt: Format) -> str:
    """An answer as text."""
    if fmt == "json":
        from meliuscli.results import json_text  # which loads what a table has no use for

        return json_text({"schema_version": SCHEMA_VERSION, **answer.value()})
    if fmt == "csv":
        return to_csv(answer.tables[0]) if answer.csv is None else answer.csv()
    return "\n".join(map(RENDERERS[fmt], answer.tables)) + answer.endings.get(fmt, "")
