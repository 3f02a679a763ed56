"""``meliuscli list``: what there is to name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from meliuscli.cli import completion, options
from meliuscli.cli.console import give, is_given, talk_of
from meliuscli.errors import BadInputError, unknown_name
from meliuscli.report.answers import Answer
from meliuscli.report.lists import LISTS, list_table
from meliuscli.report.runs import runs_table
from meliuscli.report.tables import Format, Table
from meliuscli.report.works import works_table
from meliuscli.runs import REPORTS, list_runs

WORKS = {"studies": "study", "checks": "check"}
"""Lists of folders: their name, and what each of them is."""


def list_(
    context: typer.Context,
    kinds: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="archs|spaces|datasets|conventions|runs|studies|checks",
            help="What to list; all but runs, studies and checks when left out.",
            autocompletion=completion.kinds,
        ),
    ] = None,
    reports: Annotated[Path, typer.Option("--reports", help="Where recorded runs lie.")] = REPORTS,
    fmt: options.OutputFormat = "table",
    output: options.Output = None,
) -> None:
    """List what other commands take by name.

    Networks, search spaces, data sets and conventions; runs, studies and checks that were recorded.

    Example: meliuscli list archs"""
    known = (*LISTS, "runs", *WORKS)
    kinds = ["archs" if kind == "networks" else kind for kind in kinds or []]
    for kind in kinds:
        if kind not in known:
            raise unknown_name("list", kind, known)
    chosen = kinds or list(LISTS)
    of_reports = {"runs", *WORKS} & set(chosen)
    if is_given(context, "reports") and not of_reports:
        raise BadInputError(f"--reports {reports}: is where runs lie, and none are listed", "meliuscli list runs")
    if fmt == "csv" and len(chosen) > 1:
        raise BadInputError(
            "--format csv: CSV is one table, and these are several lists", f"name one: {', '.join(known)}"
        )
    if of_reports and reports != REPORTS and not reports.is_dir():
        raise BadInputError(f"--reports {reports}: no such directory")
    tables = {kind: _table(kind, reports, fmt) for kind in chosen}
    value = {kind: table.records for kind, table in tables.items()}
    give(Answer(tuple(tables.values()), lambda: value), fmt, output)


def _table(kind: str, reports: Path, fmt: Format) -> Table:
    if kind == "runs":
        runs, broken = list_runs(reports)
        talk_of(fmt, [f"warning: {error.message}; {error.hint}" for error in broken.values()])
        return runs_table(runs, broken)
    return works_table(WORKS[kind], reports) if kind in WORKS else list_table(kind)
