"""``meliuscli report``: the report of a study from wherever its trials are, and web pages."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from meliuscli.cli import completion, options
from meliuscli.cli.console import answer, is_given, status, talk
from meliuscli.cli.networks import count_to_compare
from meliuscli.cli.progress import SHELL
from meliuscli.errors import BadInputError
from meliuscli.report.tables import Format
from meliuscli.results import require_directory
from meliuscli.runs import load_run
from meliuscli.work.folders import REPORTS
from meliuscli.work.interrupts import telling_what_is_kept


def report(
    context: typer.Context,
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="TARGET",
            help="study:NAME, check:NAME or run:ID; or networks to compare.",
            show_default=False,
            autocompletion=completion.targets,
        ),
    ],
    page: Annotated[
        Path | None, typer.Option("--html", help="Write a web page to this file.", show_default=False)
    ] = None,
    storage: options.Storage = "journal",
    reports: options.Reports = REPORTS,
    fmt: options.OutputFormat = "table",
    output: options.Output = None,
) -> None:
    """Gather the report of a study into its folder, on any machine that reaches its storage; or, with --html, write a web
    page of a study, a check, a run, or a comparison of networks.

    The page is one file, which needs no network and no server. Its tables are sorted by a click, and its charts say which
    network a mark is.

    Example: meliuscli report mobilenet-v1 meliusnet22 --html compare.html"""
    _refuse_unused(context, targets, page)
    if (study := _study(targets)) is not None and (page is None or storage != "journal"):
        _gather(study, storage, reports, fmt, output, quiet=page is not None)
    elif page is None:
        raise BadInputError(f"{targets[0]}: only a study has a report to gather", "--html FILE writes a web page")
    if page is not None:
        with status("reading"):
            text = _page(targets, reports)
        answer(text, page, "--html")
        talk(f"{page} written, {len(text.encode()) / 2**20:.2f} MiB")


def _refuse_unused(context: typer.Context, targets: list[str], page: Path | None) -> None:
    """An option that is given is used or refused."""
    if page is not None and page.suffix.lower() not in ("", ".html", ".htm"):
        raise BadInputError(f"--html {page}: not the name of a web page", "name it .html")
    if page is not None:
        require_directory(page, "--html")
    unused = (
        []
        if page is None
        else [f"--{of}" for of, name in (("format", "fmt"), ("output", "output")) if is_given(context, name)]
    )
    if unused:
        raise BadInputError(f"{' and '.join(unused)}: --html writes a page, and no other answer", "leave one out")
    if _study(targets) is None and is_given(context, "storage"):
        raise BadInputError(f"--storage: is of a shared study, and {targets[0]} is none", "leave it out")


def _study(targets: list[str]) -> str | None:
    """The name in a single study:NAME."""
    kind, _, name = targets[0].partition(":")
    return name if len(targets) == 1 and kind.lower() == "study" else None


def _gather(study: str, storage: str, reports: Path, fmt: Format, output: Path | None, quiet: bool) -> None:
    with status("loading"):
        from meliuscli.cli.search import print_report
        from meliuscli.report.gathered import report_of

    last = telling_what_is_kept(f"interrupted; the trainings of study:{study} are kept", "the same command writes it")
    with last, status("writing the report"):
        gathered, state = report_of(study, storage, reports, SHELL)
    if not quiet:
        print_report(gathered, fmt, output)
    talk(state)


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
    from meliuscli.report.counted import make_view
    from meliuscli.report.web_pages import comparison_web_page

    view = make_view("melius", None, None)
    counted = [count_to_compare(target, [], [], [], view.storage, reports) for target in targets]
    return comparison_web_page(counted, view, shlex.join(["meliuscli", "report", *targets]))


def _of_work(kind: str, name: str, reports: Path) -> str:
    from meliuscli.report.works import find_work

    directory = find_work(kind, name, reports)
    if kind == "study":
        from meliuscli.report.study import read_study
        from meliuscli.report.study_web import study_web_page

        study, state, _ = read_study(directory)
        return study_web_page(study, state)
    from meliuscli.report.check_report import read_check_report
    from meliuscli.report.web_pages import check_web_page

    check, state, command = read_check_report(directory)
    return check_web_page(name, check, command, state)
