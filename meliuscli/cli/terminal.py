"""Tables drawn on a terminal, as wide as it is."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from meliuscli.cli.console import ReaderLeft
from meliuscli.report.tables import Table, text

if TYPE_CHECKING:
    import rich.table
    from rich.console import Console


def terminal() -> Console:
    """Stdout, which is a terminal."""
    from rich.console import Console

    class Terminal(Console):
        """Rich would exit with 1 when the terminal goes away; that is for ``app.main`` to treat."""

        def on_broken_pipe(self) -> None:
            raise ReaderLeft

    return Terminal(highlight=False)


def has_unicode() -> bool:
    """Can stdout show more than ASCII?"""
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    return encoding == "utf8" and os.environ.get("TERM") != "dumb"


def draw(table: Table, gap: bool = False) -> None:
    """Print a table, below an empty line where there is to be a ``gap``. Columns that it has no room for are named."""
    console = terminal()
    if gap:
        console.print()
    grid, shown = _rich(table), table
    if _natural_width(console, grid) > console.width:
        grid.padding = 0
    while _natural_width(console, grid) > console.width and any(column.optional for column in shown.columns):
        shown = shown.narrower()
        grid = _rich(shown)
        grid.padding = 0
    if _natural_width(console, grid) <= console.width:
        console.print(grid)
        if shown.left_out:
            console.print(shown.no_room, markup=False)
    else:
        _print_stacked(console, table)
    for line in (*table.sums, *table.lines, *table.notes):
        console.print(line, markup=False)


def _natural_width(console: Console, grid: rich.table.Table) -> int:
    return console.measure(grid, options=console.options.update(width=1000)).maximum


def _print_stacked(console: Console, table: Table) -> None:
    """A row a paragraph, for terminals too narrow for the table: a number is never broken over two lines."""
    console.print(table.title, style="bold", markup=False)
    for row in table.all_rows:
        console.print(text(row[0]), style="bold", markup=False)
        pairs = zip(table.columns[1:], row[1:], strict=True)
        line = ""
        for pair in (f"  {column.heading} {text(cell)}" for column, cell in pairs if text(cell)):
            if line and len(line) + len(pair) > console.width:
                console.print(line, markup=False)
                line = ""
            line += pair
        console.print(line, markup=False)


def _rich(table: Table) -> rich.table.Table:
    import rich.box
    import rich.table
    from rich.text import Text

    total: Sequence[str] = [""] * len(table.columns) if table.total is None else [text(cell) for cell in table.total]
    grid = rich.table.Table(
        title=table.title,
        title_justify="left",
        title_style="bold",
        box=rich.box.SIMPLE,
        show_edge=False,
        show_footer=table.total is not None,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for column, footer in zip(table.columns, total, strict=True):
        justify = "right" if column.numeric else "left"
        grid.add_column(column.heading, Text(footer), justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in table.rows:
        grid.add_row(*(Text(text(cell)) for cell in row))
    return grid
