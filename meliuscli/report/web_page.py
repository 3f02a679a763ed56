"""One self-contained web page: sections of words, sortable tables and charts. No network, no server, no framework."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from meliuscli.report.chart import Chart, svg
from meliuscli.report.tables import Cell, Table, text

FACTORS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
"""The page may load nothing: what it shows is in it."""


@dataclass(frozen=True, slots=True)
class Code:
    """Text that is typed, or read by a program."""

    text: str


@dataclass(frozen=True, slots=True)
class Shares:
    """Bars of how a whole is divided: name and, for each heading, the part of it (0 to 1) with its text."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[float, str], ...]], ...]


Content = str | Code | Table | Chart | Shares


@dataclass(frozen=True, slots=True)
class WebSection:
    title: str
    contents: tuple[Content, ...]


def document(title: str, subtitle: str, sections: Sequence[WebSection]) -> str:
    """The page as a file's text; everything that is not ours to write is escaped."""
    style, script = (Path(__file__).with_name(f"page.{suffix}").read_text(encoding="utf-8") for suffix in ("css", "js"))
    body = "\n".join(
        f"<section>\n<h2>{html.escape(one.title)}</h2>\n{_all(one.contents)}\n</section>"
        for one in sections
        if one.contents
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{html.escape(title)}</title>
<style>
{style}</style>
</head>
<body>
<h1>{html.escape(title)}</h1>
<p class="soft">{html.escape(subtitle)}</p>
{body}
<script>
{script}</script>
</body>
</html>
"""


def _all(contents: Sequence[Content]) -> str:
    return "\n".join(map(_element, contents))


def _element(content: Content) -> str:
    if isinstance(content, Table):
        return _table(content)
    if isinstance(content, Chart):
        return _figure(content)
    if isinstance(content, Shares):
        return _shares(content)
    if isinstance(content, Code):
        return f"<pre>{html.escape(content.text)}</pre>"
    return f"<p>{_with_code(content)}</p>"


def _with_code(words: str) -> str:
    """Words with code between ticks."""
    pieces = [html.escape(piece) for piece in words.split("`")]
    pieces[1::2] = [f"<code>{piece}</code>" for piece in pieces[1::2]]
    return "".join(pieces)


def _figure(chart: Chart) -> str:
    legend = f" {chart.legend}" if chart.legend else ""
    caption = f"<figcaption>{html.escape(chart.title)}.{html.escape(legend)}</figcaption>"
    readout = '<p class="readout soft" aria-live="polite">Point at a mark, or tap it, to see which network it is.</p>'
    return f'<figure>\n<div class="wide">{svg(chart)}</div>\n{caption}\n{readout if chart.marks else ""}\n</figure>'


def _table(table: Table) -> str:
    """A table whose heads sort it."""
    sides = ["number" if column.numeric else "" for column in table.columns]
    heads = "".join(
        f'<th class="{side}"><button type="button">{html.escape(column.heading)}</button></th>'
        for column, side in zip(table.columns, sides, strict=True)
    )
    rows = "\n".join(_row(row, sides) for row in table.rows)
    foot = "" if table.total is None else f"<tfoot>{_row(table.total, sides)}</tfoot>"
    below = "".join(f"<li>{_with_code(words)}</li>" for words in (*table.sums, *table.lines, *table.notes))
    return (
        f'<div class="wide"><table>\n<caption><span>{html.escape(table.title)}</span></caption>\n<thead><tr>{heads}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody>{foot}</table></div>\n" + (f'<ul class="notes">{below}</ul>' if below else "")
    )


def _row(cells: Sequence[Cell], sides: Sequence[str]) -> str:
    made = (
        f'<td class="{side}" data-value="{html.escape(sort_key(cell) if side else text(cell), quote=True)}">'
        f"{html.escape(text(cell))}</td>"
        for cell, side in zip(cells, sides, strict=True)
    )
    return f"<tr>{''.join(made)}</tr>"


def sort_key(cell: Cell) -> str:
    """By what a column of numbers is sorted: the number that a cell begins with, with its k, M or G; else the cell."""
    shown = text(cell)
    match = re.match(r"[+-]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[+-]?\d+)?([kMG]?)(?!\w)", shown)
    if match is None:
        return shown
    return repr(float(match[0].removesuffix(match[1]).replace(",", "")) * FACTORS[match[1]])


def _shares(shares: Shares) -> str:
    heads = "".join(f"<th>{html.escape(heading)}</th>" for heading in ("part", *shares.headings))
    rows = []
    for name, parts in shares.rows:
        bars = "".join(
            f'<td><span class="bar" style="width:{8 * part:.2f}rem"></span> {html.escape(words)}</td>'
            for part, words in parts
        )
        rows.append(f"<tr><td>{html.escape(name)}</td>{bars}</tr>")
    caption = f"<caption><span>{html.escape(shares.title)}</span></caption>"
    return (
        f'<div class="wide"><table>{caption}<thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )
