"""``meliuscli report``: a web page of a study, a check, a run, or a comparison."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from meliuscli.cli import completion, options
from meliuscli.cli.console import answer, status, talk
from meliuscli.cli.networks import count_any
from meliuscli.errors import BadInputError
from meliuscli.runs import REPORTS, load_run


def report(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="TARGET...",
            help="study:NAME, check:NAME or run:ID; or networks to compare.",
            show_default=False,
            autocompletion=completion.targets,
        ),
    ],
    page: Annotated[Path, typer.Option("--html", help="The file to write.")] = Path("report.html"),
    reports: options.Reports = REPORTS,
) -> None:
    """Write a web page of a study, a check, a run, or a comparison of networks.

    The page is one file, which needs no network and no server. Its tables are sorted by a click, and its charts say which
    network a mark is.

    Example: meliuscli report mobilenet-v1 meliusnet22 --html compare.html"""
    with status("reading"):
        text = _page(targets, reports)
    answer(text, page)
    talk(f"{page} written, {len(text.encode()) / 2**20:.2f} MiB")


def _page(targets: list[str], reports: Path) -> str:
    works = [target for target in targets if target.lower().startswith(("study:", "check:"))]
    if works and len(targets) > 1:
        raise BadInputError(f"{works[0]} has a page of its own", "give one study or check, or networks alone")
    kind, _, name = targets[0].partition(":")
    if works:
        return _of_work(kind.lower(), name, reports)
    if kind.lower() == "run" and len(targets) == 1:
        from meliuscli.report.web_pages import run_web_page

        return run_web_page(load_run(name, reports))
    from meliuscli.report.count import make_view
    from meliuscli.report.web_pages import comparison_web_page

    view = make_view("melius", None, None)
    counted = [count_any(target, [], [], [], view.storage, reports) for target in targets]
    return comparison_web_page(counted, view, shlex.join(["meliuscli", "report", *targets]))


def _of_work(kind: str, name: str, reports: Path) -> str:
    from meliuscli.report.works import find_work

    directory = find_work(kind, name, reports)
    if kind == "study":
        from meliuscli.report.study import read_study
        from meliuscli.report.study_web import study_web_page

        return study_web_page(*read_study(directory))
    from meliuscli.report.trial import read_reported
    from meliuscli.report.web_pages import check_web_page

    reported, state, command = read_reported(directory)
    return check_web_page(name, reported.table, command, state)
