"""One table value and its renderings: for the terminal, markdown, CSV, JSON, LaTeX and notebooks."""

from __future__ import annotations

import csv
import html
import io
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal
from unicodedata import combining, east_asian_width

Cell = str | int | float | None
WIDTH = 100
"""Columns that tables keep to where they can."""

Format = Literal["table", "markdown", "csv", "json", "latex"]


@dataclass(frozen=True, slots=True)
class Column:
    """A column's heading; numbers are right-aligned. ``optional`` ones (not 0) are left out of a text that would be wider than
    ``WIDTH`` with them: those of the highest number first, and of these the last."""

    heading: str
    numeric: bool = True
    optional: int = 0


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under columns. ``total`` is a last row set apart. Under the table come ``sums``, figures that follow
    from it, in LaTeX too; ``lines``, what else is to be said, in terminal and markdown; and ``notes``, how to read it.
    ``records`` are what CSV holds instead of the rows, whose cells may be rounded for people: raw values by column.
    ``left_out`` are the headings of columns for which there was no room."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    total: tuple[Cell, ...] | None = None
    notes: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    sums: tuple[str, ...] = ()
    records: tuple[Mapping[str, Cell], ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def no_room(self) -> str:
        """The line that names what is left out; empty where nothing is."""
        return f"no room for: {', '.join(self.left_out)} (--format csv has all)" if self.left_out else ""

    @property
    def all_rows(self) -> tuple[tuple[Cell, ...], ...]:
        return self.rows if self.total is None else (*self.rows, self.total)

    def _repr_html_(self) -> str:
        """In a notebook: with what follows from it, and how to read it, below."""
        return to_html(self)

    def __str__(self) -> str:
        return to_text(self)

    def said(self, say: Callable[[str], str]) -> Table:
        """The table with other words in its cells."""

        def cells(row: tuple[Cell, ...]) -> tuple[Cell, ...]:
            return tuple(say(cell) if isinstance(cell, str) else cell for cell in row)

        return replace(
            self,
            columns=tuple(replace(column, heading=say(column.heading)) for column in self.columns),
            rows=tuple(map(cells, self.rows)),
            total=None if self.total is None else cells(self.total),
        )

    def narrower(self) -> Table:
        """The table without the column that it needs least."""
        least = max((column.optional, index) for index, column in enumerate(self.columns))[1]
        kept = [index for index in range(len(self.columns)) if index != least]

        def pick(cells: Sequence[Cell]) -> tuple[Cell, ...]:
            return tuple(cells[index] for index in kept)

        return replace(
            self,
            columns=tuple(self.columns[index] for index in kept),
            rows=tuple(pick(row) for row in self.rows),
            total=None if self.total is None else pick(self.total),
            left_out=(self.columns[least].heading, *self.left_out),
        )


def text(cell: Cell) -> str:
    """A cell for people: thousands separated, nothing for None."""
    if cell is None:
        return ""
    if isinstance(cell, int):
        return f"{cell:,}"
    return cell if isinstance(cell, str) else f"{cell:g}"


def to_text(table: Table) -> str:
    """Aligned columns, two spaces apart, or one where that would be wider than ``WIDTH``."""
    widths = _widths(table)
    if sum(widths) + len(widths) - 1 > WIDTH and any(column.optional for column in table.columns):
        return to_text(table.narrower())
    gap = "  " if sum(widths) + 2 * len(widths) - 2 <= WIDTH else " "

    def line(cells: Sequence[str]) -> str:
        blanks = [" " * (width - _columns(cell)) for cell, width in zip(cells, widths, strict=True)]
        sides = zip(cells, blanks, table.columns, strict=True)
        placed = (blank + cell if column.numeric else cell + blank for cell, blank, column in sides)
        return gap.join(placed).rstrip()

    rule = "-" * (sum(widths) + len(gap) * (len(widths) - 1))
    head = line([column.heading for column in table.columns])
    rows = [line([text(cell) for cell in row]) for row in table.rows]
    foot = [] if table.total is None else [rule, line([text(cell) for cell in table.total])]
    below = (
        part
        for words in (table.no_room, *table.sums, *table.lines, *table.notes)
        for part in textwrap.wrap(words, WIDTH)
    )
    return _lines([table.title, head, rule, *rows, *foot, *below])


def _widths(table: Table) -> list[int]:
    heads = [column.heading for column in table.columns]
    return [max(_columns(text(cell)) for cell in cells) for cells in zip(heads, *table.all_rows, strict=True)]


def _columns(words: str) -> int:
    """Columns of a terminal: two for the signs of Chinese, Japanese and Korean, none for accents that stand alone."""
    if words.isascii():
        return len(words)
    return sum(0 if combining(sign) else 2 if east_asian_width(sign) in "WF" else 1 for sign in words)


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def to_markdown(table: Table) -> str:
    """A pipe table with its title and notes."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    rule = ["---:" if column.numeric else "---" for column in table.columns]
    rows = [[text(cell) for cell in row] for row in table.rows]
    if table.total is not None:
        rows.append([f"**{text(cell)}**" if text(cell) else "" for cell in table.total])
    lines = [line([column.heading for column in table.columns]), line(rule), *(line(row) for row in rows)]
    below = [*table.sums, *table.lines, *table.notes]
    return _lines([f"**{table.title}**", "", *lines, *([""] if below else []), *(f"- {note}" for note in below)])


def to_csv(table: Table) -> str:
    """Raw values; the total is the last row."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    if table.records:
        writer.writerow(table.records[0])
        writer.writerows(record.values() for record in table.records)
    else:
        writer.writerow([column.heading for column in table.columns])
        writer.writerows(table.all_rows)
    return out.getvalue()


def to_html(table: Table) -> str:
    """A table as notebooks show it."""

    def line(tag: str, cells: Sequence[str]) -> str:
        sides = ["right" if column.numeric else "left" for column in table.columns]
        made = (
            f'<{tag} style="text-align: {side}">{html.escape(cell)}</{tag}>'
            for side, cell in zip(sides, cells, strict=True)
        )
        return f"<tr>{''.join(made)}</tr>"

    rows = [line("td", [text(cell) for cell in row]) for row in table.rows]
    foot = [] if table.total is None else [line("th", [text(cell) for cell in table.total])]
    head = line("th", [column.heading for column in table.columns])
    below = [f"<p>{html.escape(words)}</p>" for words in (*table.lines, *table.notes)]
    caption = f"<caption>{html.escape(table.title)}</caption>"
    return _lines(["<table>", caption, head, *rows, *foot, "</table>", *below])


LONG = 35
"""A LaTeX table of more rows breaks over pages."""
LATEX_SIZES = ((46, "\\normalsize"), (58, "\\footnotesize"), (66, "\\scriptsize"))
"""Up to how many characters a row fits LaTeX's ``article`` in which size; broader ones are ``\\tiny``."""


def to_latex(table: Table) -> str:
    """A ``tabular`` in a ``table``, scaled down where it is too broad, or a ``longtable`` (``\\usepackage{booktabs,
    graphicx,longtable}``)."""
    if sum(_widths(table)) > WIDTH - 10 and any(column.optional for column in table.columns):
        return to_latex(table.narrower())
    spec = "".join("r" if column.numeric else "l" for column in table.columns)
    caption = (
        f"\\caption{{{_escape(table.title)}. {_escape(' '.join(note.rstrip('.') + '.' for note in table.notes))}}}"
    )
    head = ["\\toprule", _latex_row([column.heading for column in table.columns]), "\\midrule"]
    body = [_latex_row([text(cell) for cell in row]) for row in table.rows]
    if table.total is not None:
        body += ["\\midrule", _latex_row([text(cell) for cell in table.total])]
    if table.sums:
        body.append("\\midrule")
    body += [f"\\multicolumn{{{len(table.columns)}}}{{l}}{{{_escape(words)}}} \\\\" for words in table.sums]
    remark = [f"% {table.no_room}"] if table.left_out else []
    broad = sum(_widths(table)) + len(table.columns)
    if len(table.rows) > LONG:
        size = next((size for limit, size in LATEX_SIZES if broad <= limit), "\\tiny")
        gap = 2 if size == "\\tiny" else 3
        begin = [f"{{{size}\\setlength{{\\tabcolsep}}{{{gap}pt}}", f"\\begin{{longtable}}{{{spec}}}", f"{caption} \\\\"]
        return _lines([*remark, *begin, *head, "\\endhead", *body, "\\bottomrule", "\\end{longtable}", "}"])
    opening, closing = ("\\resizebox{\\linewidth}{!}{%", "}") if broad > 60 else ("", "")
    tabular = [f"\\begin{{tabular}}{{{spec}}}", *head, *body, "\\bottomrule", f"\\end{{tabular}}{closing}"]
    return _lines(
        [*remark, "\\begin{table}", "\\centering", caption, *([opening] if opening else []), *tabular, "\\end{table}"]
    )


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(_escape(cell) for cell in cells) + " \\\\"


_LATEX = {
    **{char: f"\\{char}" for char in "&%$#_{}"},
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "±": "$\\pm$",
    "×": "$\\times$",
    "≤": "$\\leq$",
}


def _escape(value: str) -> str:
    return "".join(_LATEX.get(char, char) for char in value)
