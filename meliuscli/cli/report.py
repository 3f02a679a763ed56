"""``meliuscli report``: the report of a study, from wherever its trials are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from meliuscli.cli import options
from meliuscli.cli.console import SHELL, status, talk
from meliuscli.errors import BadInputError
from meliuscli.work.folders import REPORTS


def report(
    study: Annotated[str, typer.Argument(metavar="study:NAME", help="The study.", show_default=False)],
    storage: options.Storage = "journal",
    reports: Annotated[Path, typer.Option("--reports", help="Where study folders are.")] = REPORTS,
    fmt: options.OutputFormat = "table",
    output: options.Output = None,
) -> None:
    """Gather the report of a study, finished or not, into its folder: on any machine that reaches its storage.

    Example: meliuscli report study:night --storage postgresql://user@host/studies"""
    kind, colon, name = study.partition(":")
    if not colon or kind.lower() != "study" or not name:
        raise BadInputError(f"{study}: names no study", "for example study:night")
    with status("loading"):
        from meliuscli.cli.search import print_report
        from meliuscli.report.gathered import report_of

    with status("writing the report"):
        gathered, state = report_of(name, storage, reports, SHELL)
    print_report(gathered, fmt, output)
    talk(state)
