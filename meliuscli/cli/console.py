"""Where text goes: answers to stdout or a file, talk to stderr."""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import rich.box
import rich.progress
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from meliuscli.report.tables import Format, Table, text, to_csv, to_latex, to_markdown
from meliuscli.results import write_text
from meliuscli.units import format_duration

WIDTH = 100
"""Columns where there is no terminal to ask."""

errors = Console(stderr=True, highlight=False, soft_wrap=True)


class Progress:
    """Steps of long work on stderr: a bar with the time left on a terminal, one line a step elsewhere."""

    def __init__(self, label: str, total: int, done: int = 0) -> None:
        self._label, self._total, self._done = label, total, done
        self._bar = None
        if errors.is_terminal:
            self._bar = rich.progress.Progress(
                rich.progress.TextColumn("{task.description}"),
                rich.progress.BarColumn(bar_width=20),
                rich.progress.MofNCompleteColumn(),
                rich.progress.TimeElapsedColumn(),
                rich.progress.TextColumn("left"),
                rich.progress.TimeRemainingColumn(),
                console=errors,
                transient=True,
                speed_estimate_period=600,
            )
            self._task = self._bar.add_task(label, total=total, completed=done)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        self._started = time.monotonic()
        self._first = self._done
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, message: str) -> None:
        """One more is done."""
        self._done += 1
        if self._bar is not None:
            self._bar.console.print(message, markup=False)
            self._bar.advance(self._task)
            return
        each = (time.monotonic() - self._started) / (self._done - self._first)
        left = format_duration(each * (self._total - self._done))
        errors.print(f"{self._label} {self._done}/{self._total}: {message} ({left} left)", markup=False)


def render(table: Table, fmt: Format) -> str:
    """A table as text (for JSON see the commands: it has more than the table)."""
    if fmt == "markdown":
        return to_markdown(table)
    if fmt == "csv":
        return to_csv(table)
    if fmt == "latex":
        return to_latex(table)
    raise ValueError(fmt)


def answer(content: str, output: Path | None) -> None:
    """Write the answer to a file, or to stdout."""
    if output is not None:
        write_text(output, content)
        return
    sys.stdout.write(content)
    sys.stdout.flush()


def answer_table(table: Table, output: Path | None, lines: Sequence[str] = ()) -> None:
    """The table for people, then its notes and ``lines``; without colours when it does not go to a terminal."""
    written = io.StringIO()
    console = _stdout() if output is None else Console(file=written, width=WIDTH, highlight=False)
    grid = _rich(table)
    if console.measure(grid, options=console.options.update(width=1000)).maximum > console.width:
        grid.padding = 0
    console.print(grid)
    for line in (*lines, *table.notes):
        console.print(line, markup=False)
    if output is not None:
        write_text(output, written.getvalue())
    else:
        sys.stdout.flush()


def say(line: str) -> None:
    """A line of the answer."""
    _stdout().print(line, markup=False)


class _Console(Console):
    """Rich would exit with 1 when the reader of a pipe has left; that is for ``app.main`` to treat."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def _stdout() -> Console:
    # Not on a terminal rich assumes 80 columns, too few for exact numbers; a set COLUMNS is respected.
    wide = None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDTH
    return _Console(width=wide, highlight=False)


def _rich(table: Table) -> RichTable:
    has_total = table.total is not None
    grid = RichTable(
        title=table.title,
        title_justify="left",
        title_style="bold",
        box=rich.box.SIMPLE,
        show_edge=False,
        show_footer=has_total,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for index, column in enumerate(table.columns):
        grid.add_column(
            column.heading,
            Text(text(table.total[index])) if table.total is not None else "",
            justify="right" if column.numeric else "left",
            overflow="fold",
        )
    for row in table.rows:
        grid.add_row(*(Text(text(cell)) for cell in row))
    return grid
