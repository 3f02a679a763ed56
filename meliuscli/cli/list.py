"""``meliuscli list``: what there is to name."""

from __future__ import annotations

from typing import Annotated

import typer

from meliuscli.cli import options
from meliuscli.cli.console import answer, answer_tables
from meliuscli.errors import unknown_name
from meliuscli.report.lists import LISTS, list_object, list_table
from meliuscli.report.tables import to_json


def list_(
    kinds: Annotated[
        list[str] | None,
        typer.Argument(metavar="[archs|spaces|datasets|conventions]...", help="What to list; all when left out."),
    ] = None,
    fmt: options.OutputFormat = "table",
    output: options.Output = None,
) -> None:
    """List the networks, search spaces, data sets and conventions that other commands take by name."""
    for kind in kinds or []:
        if kind not in LISTS:
            raise unknown_name("list", kind, LISTS)
    chosen = kinds or list(LISTS)
    if fmt == "json":
        answer(to_json({kind: list_object(kind) for kind in chosen}), output)
        return
    answer_tables([list_table(kind) for kind in chosen], fmt, output)
