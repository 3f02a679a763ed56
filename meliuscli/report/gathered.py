"""The report of a shared study, gathered from its storage into a folder of this machine."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from meliuscli.report.study import StudyReport, gather, read_study
from meliuscli.report.study_page import write_report
from meliuscli.report.works import find_work
from meliuscli.results import write_record, write_text
from meliuscli.search.addresses import open_backend, without_password
from meliuscli.search.backend import told_once
from meliuscli.search.begin import SPACE_FILE
from meliuscli.search.lost import refuse_lost
from meliuscli.search.membership import Header, open_shared
from meliuscli.search.shared import SharedStudy
from meliuscli.search.storage import JOURNAL_FILE
from meliuscli.work.folders import STUDY
from meliuscli.work.interrupts import telling_what_is_kept
from meliuscli.work.listener import SILENT, Listener


def report_of(name: str, storage: str, reports: Path, listener: Listener = SILENT) -> tuple[StudyReport, str]:
    """The report of a study, written into its folder, and how far the study is. Raises as ``open_shared``."""
    directory = reports / name
    if storage == "journal" and (Path(name).name != name or not (directory / JOURNAL_FILE).is_file()):
        directory = find_work("study", name, reports)
    if storage == "journal" and is_of_one_process(directory):
        with STUDY.lock(directory):
            report, state, is_done = read_study(directory)
            write_report(report)
            if is_done:
                STUDY.mark_done(directory)
        return report, state
    with closing(open_backend(storage, directory, waits=told_once(listener))) as backend:
        study, header = open_shared(backend, name, directory, listener=listener)
        return write_shared(study, header, storage), f"done: {study.progress()}"


def report_shared(study: SharedStudy, header: Header, storage: str, listener: Listener) -> StudyReport:
    """The report of a shared study that is done. Raises ``InterruptedByUser`` with the command that writes it."""
    kept = f"interrupted while the report was written; all trainings are kept in {study.place}"
    way = STUDY.report_command(study.directory, without_password(storage))
    with telling_what_is_kept(kept, f"write it with: {way}"), listener.status("writing the report"):
        return write_shared(study, header, storage)


def is_of_one_process(directory: Path) -> bool:
    """Is a study's folder that of a search which trains all of it itself?"""
    return (directory / STUDY.marker).is_file() and (directory / JOURNAL_FILE).is_file() and not _is_shared(directory)


def _is_shared(directory: Path) -> bool:
    from meliuscli.search.resume import reopen

    return reopen(directory).storage is not None


def write_shared(study: SharedStudy, header: Header, storage: str) -> StudyReport:
    """Write the folder of a shared study."""
    directory = study.directory
    refuse_lost(study, directory)
    about: dict[str, Any] = {"settings": asdict(header.settings), "origin": header.origin}
    shared = {"storage": without_password(storage), "is_done": study.is_done}
    write_record(directory / STUDY.marker, {**about, **shared})
    write_text(directory / SPACE_FILE, header.space)
    report = gather(study, header.origin)
    write_report(report)
    return report
