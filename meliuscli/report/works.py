"""Studies and checks in a directory of reports, as lists: what each is, how far it is, and what goes on with it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meliuscli.errors import BadInputError, unknown_name, why_unread
from meliuscli.report.answers import Answer
from meliuscli.report.tables import Cell, Column, Table
from meliuscli.results import read_record
from meliuscli.units import format_count, format_ms
from meliuscli.work.folders import CHECK, STUDY

FINISHED, UNFINISHED = "finished", "unfinished"
KINDS = {kind.what: kind for kind in (STUDY, CHECK)}


def works_table(kind: str, reports: Path) -> Table:
    """A row a folder of ``kind`` (study or check), the oldest first; what cannot be read is named, not left out."""
    read = {"study": _study, "check": _check}[kind]
    records, broken = [], []
    for directory in KINDS[kind].directories(reports):
        marker = directory / KINDS[kind].marker
        try:
            records.append(read(directory, read_record(marker)))
        except (OSError, ValueError, KeyError, TypeError, BadInputError) as error:
            broken.append(f"{kind}:{directory.name} cannot be read: {marker}: {why_unread(error)}")
    records.sort(key=lambda record: str(record["time"]))
    unfinished = [
        line
        for record in records
        if record["state"] == UNFINISHED
        for line in (f"{kind}:{record['name']} is unfinished", f"  go on with: {record['resume']}")
    ]
    headings = [heading for heading in (records[0] if records else {"name": None}) if heading != "resume"]
    return Table(
        {"study": "Studies (meliuscli show study:NAME)", "check": "Checks of proxies (meliuscli show check:NAME)"}[
            kind
        ],
        tuple(Column(heading, numeric=False, optional=heading == "time") for heading in headings),
        tuple(tuple(record[heading] for heading in headings) for record in records),
        lines=(*unfinished, *broken),
        records=tuple(records),
    )


@dataclass(frozen=True, slots=True)
class ShownWork:
    """What a study or check answers as it stands, how far it is, the command that made it, and what can be done now: it
    is gone on with, or used where it is finished."""

    answer: Answer
    state: str
    command: str
    way: str


def show_work(kind: str, directory: Path) -> ShownWork:
    """A study or check as it stands. Raises ``BadInputError`` where its files are corrupt."""
    return _show_study(directory) if kind == "study" else _show_check(directory)


def _show_study(directory: Path) -> ShownWork:
    from meliuscli.report.study import read_study
    from meliuscli.report.study_page import best_files, study_answer
    from meliuscli.search.resume import reopen

    study, state, is_finished = read_study(directory)
    storage = reopen(directory).storage
    resume = STUDY.resume_command(directory, storage)
    more = "" if storage else f"; more trials: {resume} --trials {2 * study.settings.trials}"
    uses = [f"report: {STUDY.report_command(directory, storage or 'journal')}"]
    uses += [f"export: {shlex.join(['meliuscli', 'export', str(directory / name)])}" for name in best_files(study)]
    way = f"it is finished; {'; '.join(uses)}{more}" if is_finished else f"go on with: {resume}"
    answer = study_answer(study, state=state, resume=None if is_finished else resume)
    return ShownWork(answer, state, study.origin["command"], way)


def _show_check(directory: Path) -> ShownWork:
    from meliuscli.report.check_report import read_check_report

    check, state, command = read_check_report(directory)
    is_finished = _check(directory, read_record(directory / CHECK.marker))["state"] == FINISHED
    resume = CHECK.resume_command(directory)
    page = f"{CHECK.report_command(directory)} --html {shlex.quote(f'{directory.name}.html')}"
    way = f"it is finished; web page: {page}" if is_finished else f"go on with: {resume}"
    return ShownWork(check.answer(state=state, resume=None if is_finished else resume), state, command, way)


def find_work(kind: str, name: str, reports: Path) -> Path:
    """The folder of a study or check by its name. Raises ``BadInputError`` for an unknown one, with the nearest
    names."""
    names = [directory.name for directory in KINDS[kind].directories(reports)]
    if not names:
        raise BadInputError(f"{reports}: no {kind} there", "--reports names the directory")
    if name not in names:
        raise unknown_name(kind, name, names)
    return reports / name


def _study(directory: Path, stored: Mapping[str, Any]) -> dict[str, Cell]:
    settings, origin = stored["settings"], stored["origin"]
    text: Callable[[float], str] = format_count if settings["objective"] == "ops" else lambda s: f"{format_ms(s)} ms"
    return {
        "name": directory.name,
        "time": origin["time"][:16],
        "space": settings["space"],
        "budget": ", ".join(map(text, settings.get("budgets") or [settings["budget"]])),
        "answers for": "ImageNet" if settings.get("maximises") == "belief" else origin["dataset"]["name"],
        "trials": settings["trials"],
        "state": (state := _state(directory, stored.get("is_done", False))),
        "resume": None if state == FINISHED else STUDY.resume_command(directory, storage=stored.get("storage")),
    }


def _check(directory: Path, stored: Mapping[str, Any]) -> dict[str, Cell]:
    from meliuscli.search.plan import CheckPlan  # loads numpy

    plan, origin = CheckPlan.model_validate(stored["plan"]), stored["origin"]
    asked = len(stored["networks"]) * sum(len(plan.seeds_of(way)) for way in plan.ways)
    done = sum(len(seeds) for ways in stored["trainings"].values() for seeds in ways.values())
    return {
        "name": directory.name,
        "time": origin["time"][:16],
        "space": plan.space,
        "against": plan.against,
        "networks": len(stored["networks"]),
        "trainings": done,
        "state": (state := _state(directory, done >= asked)),
        "resume": None if state == FINISHED else CHECK.resume_command(directory),
    }


def _state(directory: Path, is_done: bool) -> str:
    """Finished is a work all of whose trainings are done, when its report is written."""
    return FINISHED if is_done and (directory / "report.md").exists() else UNFINISHED
