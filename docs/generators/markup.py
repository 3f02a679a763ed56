"""Markdown: tables, code, docstrings."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A pipe table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(_cell(cell) for cell in line)} |\n" for line in lines)


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def code(value: object) -> str:
    return f"`{value}`" if value not in (None, "") else ""


def prose(docstring: str | None) -> str:
    """A docstring as Markdown: reST's double ticks are single ones there."""
    return inspect.cleandoc(docstring or "").replace("``", "`")
