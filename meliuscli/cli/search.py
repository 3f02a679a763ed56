"""``meliuscli search``: the best networks of a space under a budget of OPs, or of measured latency."""

from __future__ import annotations

import os
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from meliuscli.cli import completion, options
from meliuscli.cli.console import SHELL, answer, answer_tables, is_given, status, talk
from meliuscli.errors import BadInputError, FailedError
from meliuscli.report.tables import Format, to_json
from meliuscli.units import parse_bytes, parse_count, parse_duration, parse_latency
from meliuscli.work.folders import STUDY

if TYPE_CHECKING:
    from meliuscli.report.study import StudyReport
    from meliuscli.search.begin import Asked


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
    space: Annotated[
        str, typer.Option("--space", help="A search space's name or TOML file.", autocompletion=completion.spaces)
    ] = "meliusnet",
    trials: Annotated[int, typer.Option("--trials", min=1, max=100_000, help="Candidates to train.")] = 16,
    timeout: Annotated[
        str, typer.Option("--timeout", help="Start no new candidate after this (5m, 2h); the finals follow.")
    ] = "5m",
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**31 - 1, help="Everything random follows from it.")] = 0,
    sampler: Annotated[
        Literal["cost-aware", "tpe", "gp", "nsga2", "random"],
        typer.Option("--sampler", help="How candidates are proposed."),
    ] = "cost-aware",
    finalists: Annotated[int, typer.Option("--finalists", min=0, max=100, help="Found networks in the finals.")] = 3,
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
    if resume and force:
        raise BadInputError("--resume and --force exclude each other")
    latency = objectives == "accuracy,latency"
    if budget is None and resume and study is None:
        raise BadInputError("--resume: which study?", STUDY.named_in(reports))
    if budget is None and not resume:
        raise BadInputError("--budget is missing", f"for example --budget {'5ms' if latency else '5e8'}")
    # With its name given, a study says in which unit the budget is.
    budgets = None if budget is None or (resume and study) else _parse_budgets(budget, latency)
    with status("loading"):
        from meliuscli.api import conducted
        from meliuscli.search.begin import Asked, begin, default_name, reopen, with_given

    num_workers = workers or os.cpu_count() or 1
    asked = Asked(
        budgets=budgets or (),
        space=space,
        objective="latency" if latency else "ops",
        maximises=objective,
        max_size=None if max_size is None else parse_bytes(max_size, "--max-size"),
        max_params=None if max_params is None else parse_count(max_params, "--max-params"),
        **{name: context.params[name] for name in AS_GIVEN},
    )
    if resume:
        default = "" if budgets is None else default_name(Path(space).stem, budgets[-1], latency)
        left = reopen(STUDY.find(reports, study, default))
        if budget is not None and study:
            by_latency = latency if is_given(context, "objectives") else left.settings.objective == "latency"
            asked = replace(asked, budgets=_parse_budgets(budget, by_latency))
        try:
            begun = with_given(left, _given_anew(context, asked))
        except BadInputError as error:
            other = "leave it out to go on, or begin another study with --study NAME"
            raise BadInputError(error.message, error.hint or other) from None
    else:
        begun = begin(asked, num_workers, reports, study, force, SHELL)
    report = conducted(begun, resume, num_workers, limit, SHELL)
    _print(report, fmt, output)


AS_GIVEN = (
    *("trials", "seed", "sampler", "finalists", "final_seeds", "dataset", "data", "skip_bad", "transfer", "device"),
)
"""Options that ``Asked`` has under the same name and as they are."""


def _parse_budgets(budget: str, latency: bool) -> tuple[float, ...]:
    """All budgets, the smallest first."""
    if not latency and re.search(r"[0-9]\s*[mu]?s\s*(,|$)", budget):
        raise BadInputError(f"--budget {budget}: a time is a budget of latency", "add --objectives accuracy,latency")
    parse = parse_latency if latency else parse_count
    return tuple(sorted({parse(part, "--budget") for part in budget.split(",")}))


def _given_anew(context: typer.Context, asked: Asked) -> dict[str, Any]:
    """What the command line asks of a study that was made before: the values of ``asked`` that are on it."""
    names = {"budget": "budgets", "objectives": "objective", "objective": "maximises"}
    given = {names.get(name, name) for name in context.params if is_given(context, name)}
    values = {field.name: getattr(asked, field.name) for field in fields(asked) if field.name in given}
    if "space" in values:
        values["space"] = Path(asked.space).stem
    if "device" in values:
        from meliuscli.training.execution import find_device

        values["device"] = find_device(asked.device)
    return values


def _print(report: StudyReport, fmt: Format, output: Path | None) -> None:
    from meliuscli.report.study_page import best_files
    from meliuscli.report.study_tables import study_tables, study_value

    if fmt == "json":
        answer(to_json(study_value(report)), output)
    elif fmt == "csv":
        answer((report.directory / "front.csv").read_text(encoding="utf-8"), output)
    else:
        last = f"{report.answers_for}\n" if fmt in ("table", "markdown") else ""
        answer_tables(study_tables(report), fmt, output, after=last)
    best = "".join(f", {name}" for name in best_files(report))
    talk(f"written: {report.directory} (report.md, report.html, trials.csv, front.csv, pareto.png{best})")
    if not report.num_found:
        raise FailedError(
            f"the search trained no network of its own: {len(report.records)} trials were of published ones",
            "allow more --trials or a longer --timeout: meliuscli search --resume does",
        )
