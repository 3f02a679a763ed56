"""Pages of words and tables, as plain text of any width and as Markdown."""

from __future__ import annotations

import re
import textwrap
from typing import NamedTuple

from meliuscli.report.tables import WIDTH, Table, to_markdown, to_text


class Section(NamedTuple):
    """A paragraph under a heading of its own."""

    title: str
    text: str


Part = str | Section | Table
"""A piece of a page: a paragraph, one with a heading, or a table."""


def prose(*paragraphs: str) -> tuple[str, ...]:
    """Paragraphs, each on one line."""
    return tuple(" ".join(text.split()) for text in paragraphs)


def part_text(part: Part, width: int = WIDTH) -> str:
    """A piece of a page as plain text, wrapped between words."""
    if isinstance(part, Table):
        return to_text(part)
    if isinstance(part, Section):
        return f"{_fill(part.title, width)}\n{textwrap.indent(_fill(part.text, width - 2), '  ')}\n"
    return f"{_fill(part, width)}\n"


def _fill(words: str, width: int) -> str:
    return textwrap.fill(words, width, break_long_words=False, break_on_hyphens=False)


def part_markdown(part: Part) -> str:
    """A piece of a page as Markdown."""
    if isinstance(part, Table):
        return to_markdown(part)
    return f"**{part.title}.** {_escaped(part.text)}\n" if isinstance(part, Section) else f"{_escaped(part)}\n"


def _escaped(text: str) -> str:
    """Outside of code, what Markdown would take for emphasis or a tag is a character."""
    pieces = text.split("`")
    pieces[::2] = [re.sub(r"([*_<])", r"\\\1", piece) for piece in pieces[::2]]
    return "`".join(pieces)
