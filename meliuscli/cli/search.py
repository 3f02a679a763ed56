"""``meliuscli search``: the best networks of a space under a budget of OPs, or of measured latency."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from meliuscli.cli import completion, options
from meliuscli.cli.asked_search import ask_for_budget, asked_search, given_anew, parse_budgets
from meliuscli.cli.console import give, is_given, status, talk
from meliuscli.errors import BadInputError, FailedError, InterruptedByUser
from meliuscli.report.tables import Format
from meliuscli.units import parse_duration
from meliuscli.work.folders import STUDY
from meliuscli.work.listener import Listener

if TYPE_CHECKING:
    from meliuscli.report.study import StudyReport
    from meliuscli.search.begin import Asked, Begun


def search(
    context: typer.Context,
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget",
            help="At the target input: OPs (5e8, 500M; several: 1.5e8,2e8), or latency (5ms).",
            show_default=False,
        ),
    ] = None,
    objectives: Annotated[
        Literal["accuracy,ops", "accuracy,latency"],
        typer.Option("--objectives", help="latency: of packed inference on this machine, one image, one thread."),
    ] = "accuracy,ops",
    objective: Annotated[
        Literal["belief", "proxy"] | None,
        typer.Option(
            "--objective",
            help="belief: ImageNet top-1 as the evidence has it; proxy: accuracy on the proxy's data (default: belief"
            " where the evidence covers the space).",
            show_default=False,
        ),
    ] = None,
    max_size: Annotated[
        str | None, typer.Option("--max-size", help="Largest size of a network (4MiB).", show_default=False)
    ] = None,
    max_params: Annotated[
        str | None, typer.Option("--max-params", help="Most params of a network (1e7).", show_default=False)
    ] = None,
    max_ram: Annotated[
        str | None, typer.Option("--max-ram", help="Most RAM of a network (256KiB).", show_default=False)
    ] = None,
    max_flash: Annotated[
        str | None, typer.Option("--max-flash", help="Most flash of a network (1MiB).", show_default=False)
    ] = None,
    space: Annotated[
        str, typer.Option("--space", help="A search space's name or TOML file.", autocompletion=completion.spaces)
    ] = "meliusnet",
    trials: Annotated[int, typer.Option("--trials", min=1, max=100_000, help="Candidates to train.")] = 20,
    timeout: Annotated[
        str,
        typer.Option(
            "--timeout", help="Start no new candidate after this (5m, 2h), from the first on; the finals follow."
        ),
    ] = "5m",
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**31 - 1, help="Everything random follows from it.")] = 0,
    sampler: Annotated[
        Literal["cost-aware", "tpe", "gp", "nsga2", "random"],
        typer.Option("--sampler", help="How candidates are proposed."),
    ] = "cost-aware",
    finalists: Annotated[int, typer.Option("--finalists", min=0, max=100, help="Found networks in the finals.")] = 5,
    final_seeds: Annotated[int, typer.Option("--final-seeds", min=1, max=100, help="Trainings a finalist.")] = 3,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, max=256, help="Trainings at a time (default: cores).", show_default=False),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            help="Data set of the proxy (default: the space's).",
            show_default=False,
            autocompletion=completion.datasets,
        ),
    ] = None,
    data: options.Data = None,
    skip_bad: options.SkipBad = False,
    transfer: Annotated[
        str | None,
        typer.Option(
            "--transfer",
            metavar="DATASET",
            help="Also train finalists and published networks on data that the search never used: an image folder, a data"
            " set's name, or NAME:DIR.",
            show_default=False,
        ),
    ] = None,
    device: options.Device = "cpu",
    study: Annotated[
        str | None,
        typer.Option(
            "--study",
            help="Name of the study's folder (default: space and budget).",
            show_default=False,
            autocompletion=completion.studies,
        ),
    ] = None,
    reports: Annotated[Path, typer.Option("--reports", help="Where study folders are.")] = Path("reports"),
    report_to: options.ReportTo = None,
    storage: Annotated[
        str | None,
        typer.Option(
            "--storage",
            metavar="URL",
            help="Share the study that --study names with meliuscli worker: journal, journal:PATH, postgresql://..., mysql://...,"
            " redis://..., grpc://HOST:PORT, sqlite:///FILE.",
            show_default=False,
        ),
    ] = None,
    lag: Annotated[
        str | None,
        typer.Option(
            "--lag",
            metavar="N|none",
            help="How far back a proposal sees, which should be twice the number of workers or more, so that none waits; none: all that is told, which is not"
            " repeatable.",
            show_default=False,
        ),
    ] = None,
    trial_timeout: Annotated[
        str | None,
        typer.Option(
            "--trial-timeout", help="End a training of a shared study after this, as failed.", show_default=False
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue a study with the settings it was made with; --trials may be more."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Delete a study of that name first.")] = False,
    fmt: options.OutputFormat = "table",
    output: options.Output = None,
) -> None:
    """Search a space for the best networks within a budget, and compare them with the published ones.

    The search maximises what is believed of ImageNet top-1 where published results say something of the space's
    networks, else the accuracy on the proxy's data. It writes reports/STUDY with report.md, report.html, trials.csv,
    front.csv, pareto.png, best.toml and all that repeats it.

    Example: meliuscli search --budget 1.5e8,2e8 --max-size 4MiB"""
    limit = parse_duration(timeout, "--timeout")
    options.refuse_both(resume, force)
    latency = objectives == "accuracy,latency"
    if budget is None and not (resume and study):
        ask_for_budget(resume, latency, reports)
    # With its name given, a study says in which unit the budget is.
    budgets = None if budget is None or (resume and study) else parse_budgets(budget, latency)
    with status("loading"):
        from meliuscli.api.searching import conducted
        from meliuscli.search.begin import begin

    num_workers = workers or os.cpu_count() or 1
    asked = asked_search(context, budgets or (), latency)
    if storage is None and trial_timeout is not None:
        raise BadInputError("--trial-timeout is for studies that workers share", "add --storage, or leave it out")
    with options.reporting(report_to, reports) as listener:
        if storage is not None:
            _search_together(context, asked, storage, workers or 1, listener)
            return
        if resume:
            begun = _begun_before(context, asked, study, reports)
        else:
            begun = begin(asked, num_workers, reports, study, force, listener)
        print_report(conducted(begun, resume, num_workers, limit, listener), fmt, output)


def _begun_before(context: typer.Context, asked: Asked, study: str | None, reports: Path) -> Begun:
    """The study that --resume goes on with, and what the command line asks of it anew."""
    from meliuscli.search.begin import default_name
    from meliuscli.search.resume import reopen, with_given

    latency, budget = asked.objective == "latency", context.params["budget"]
    default = default_name(Path(asked.space).stem, asked.budgets[-1], latency) if asked.budgets else ""
    left = reopen(STUDY.find(reports, study, default))
    if left.storage is not None:
        raise BadInputError(f"{left.directory}: workers share this study", SHARED_WITHOUT["resume"])
    if study and is_given(context, "budget"):
        by_latency = latency if is_given(context, "objectives") else left.settings.objective == "latency"
        asked = replace(asked, budgets=parse_budgets(budget, by_latency))
    return with_given(left, given_anew(context, asked))


def _search_together(context: typer.Context, asked: Asked, storage: str, workers: int, listener: Listener) -> None:
    """Make or join a shared study, work on it, and print its report when it is done."""
    study, reports = context.params["study"], context.params["reports"]
    for option, instead in SHARED_WITHOUT.items():
        if is_given(context, option):
            raise BadInputError(f"--{option} and --storage exclude each other", instead)
    if study is None:
        raise BadInputError("--storage: the study needs a name", "add --study NAME")
    from meliuscli.report.gathered import is_of_one_process, report_shared
    from meliuscli.search.together import search_together

    if storage == "journal" and is_of_one_process(STUDY.named(reports, study)):
        raise BadInputError(f"{reports / study} is the study of one search", "choose another --study")
    made, header, left = search_together(asked, study, storage, reports, workers, listener)
    if left.interrupted:
        raise InterruptedByUser(left.sentence, "the same command goes on")
    if not left.is_done:
        talk(f"{left.sentence}; the same command goes on")
        return
    report = report_shared(made, header, storage, listener)
    print_report(report, context.params["fmt"], context.params["output"])


SHARED_WITHOUT = {
    "resume": "the same command, or meliuscli worker, goes on with a shared study",
    "force": "choose another --study",
    "timeout": "--trials says how long a shared study is; meliuscli worker has --time-limit",
}
"""Options that a shared study does not have, and what there is in place of each."""


def print_report(report: StudyReport, fmt: Format, output: Path | None) -> None:
    """Print the answer of a study, and say which files hold it."""
    from meliuscli.report.study_page import best_files, study_answer

    give(study_answer(report), fmt, output)
    best = "".join(f", {name}" for name in best_files(report))
    talk(f"written: {report.directory} (report.md, report.html, trials.csv, front.csv, pareto.png{best})")
    if (reason := report.why_no_answer) is not None:
        raise FailedError(*reason)
