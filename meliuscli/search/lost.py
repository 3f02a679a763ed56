"""Trials that a study's journal has lost: the other files of its folder say how many there were."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from meliuscli.errors import BadInputError
from meliuscli.results import read_record
from meliuscli.search.storage import JOURNAL_FILE
from meliuscli.search.study_trials import StudyTrials
from meliuscli.work.folders import STUDY


def lost_trials(study: StudyTrials, directory: Path) -> str | None:
    """What the journal lacks that another file has, as a sentence; None where nothing is known to be lost. ``directory`` is
    the study's, of which its own may be a copy."""
    num_there = len(study.records())
    name, num_written = max(_written(study.directory).items(), key=lambda item: item[1])
    if num_written <= num_there:
        return None
    return f"{study.place or directory / JOURNAL_FILE} has {num_there} trials, and {directory / name} was made of {num_written}: some are lost"


def refuse_lost(study: StudyTrials, directory: Path) -> None:
    """Raise ``BadInputError`` for a study whose journal has lost trials: its report would be of the rest."""
    if (problem := lost_trials(study, directory)) is not None:
        command = STUDY.resume_command(directory)
        again = f"or have them trained again: {command}" if study.place is None else "or name another --reports"
        raise BadInputError(problem, f"restore it, {again}")


def _written(directory: Path) -> Mapping[str, int]:
    """File -> the number of trials that were done when it was written; 0 for what is not there, or does not say."""
    finals = {name: _of_record(directory / name) for name in ("finals.json", "transfer.json")}
    return {"trials.csv": _of_table(directory / "trials.csv"), **finals}


def _of_table(path: Path) -> int:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
        return sum(1 for row in csv.DictReader(io.StringIO(text)) if (row.get("trial") or "").isdigit())
    except (OSError, csv.Error):
        return 0


def _of_record(path: Path) -> int:
    try:
        number = read_record(path).get("trials", 0)
    except (OSError, ValueError, BadInputError):  # whoever needs it says so
        return 0
    return number if type(number) is int else 0
