"""Studies and checks in a directory of reports, as lists: what each is, how far it is, and what goes on with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meliuscli.errors import BadInputError, MissingError, unknown_name
from meliuscli.report.answers import Answer
from meliuscli.report.tables import Cell, Column, Table
from meliuscli.results import read_record
from meliuscli.units import format_count, format_ms
from meliuscli.work.folders import CHECK, STUDY

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
            broken.append(f"{kind}:{directory.name} cannot be read: {marker}: {error!r}")
    records.sort(key=lambda record: str(record["time"]))
    unfinished = [
        line
        for record in records
        if record["state"] == "unfinished"
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
    """What a study or check answers as it stands, how far it is, the command that made it, and the one that goes on."""

    answer: Answer
    state: str
    command: str
    resume: str


def show_work(kind: str, directory: Path) -> ShownWork:
    """A study or check as it stands. Raises ``BadInputError`` where its files are corrupt."""
    if kind == "study":
        from meliuscli.report.study import read_study
        from meliuscli.report.study_page import study_answer
        from meliuscli.search.resume import reopen

        study, state = read_study(directory)
        resume = STUDY.resume_command(directory, reopen(directory).storage)
        return ShownWork(study_answer(study, state=state, resume=resume), state, study.origin["command"], resume)
    from meliuscli.report.check_report import read_check_report

    resume = CHECK.resume_command(directory)
    check, state, command = read_check_report(directory)
    return ShownWork(check.answer(state=state, resume=resume), state, command, resume)


def find_work(kind: str, name: str, reports: Path) -> Path:
    """The folder of a study or check by its name. Raises ``MissingError`` where there is none at all, ``BadInputError``
    with the nearest names for an unknown one."""
    names = [directory.name for directory in KINDS[kind].directories(reports)]
    if not names:
        raise MissingError(f"{reports}: no {kind} there", "--reports names the directory")
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
        "state": _state(directory, "study") if stored.get("is_done", True) else "unfinished",
        "resume": STUDY.resume_command(directory, storage=stored.get("storage")),
    }


def _check(directory: Path, stored: Mapping[str, Any]) -> dict[str, Cell]:
    plan, origin = stored["plan"], stored["origin"]
    done = sum(len(seeds) for ways in stored["trainings"].values() for seeds in ways.values())
    return {
        "name": directory.name,
        "time": origin["time"][:16],
        "space": plan["space"],
        "against": plan.get("against", "long"),
        "networks": len(stored["networks"]),
        "trainings": done,
        "state": _state(directory, "check"),
        "resume": CHECK.resume_command(directory),
    }


def _state(directory: Path, kind: str) -> str:
    """Finished, if the report was written after the work was last begun or gone on with."""
    page, marker = directory / "report.md", directory / KINDS[kind].marker
    return "finished" if page.exists() and page.stat().st_mtime >= marker.stat().st_mtime else "unfinished"
