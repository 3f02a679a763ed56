"""Folders of long work (a run, a study, a check): made whole, held by one writer, found again, deleted only with --force."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from meliuscli.errors import BadInputError, why_unread

if TYPE_CHECKING:
    import filelock


REPORTS = Path("reports")
"""Where long work lies unless ``--reports`` says otherwise."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a folder holds, the command that makes it, the option that names it, the file that marks it, and what a folder
    is called besides the name of the work."""

    what: str
    command: str
    option: str
    marker: str
    before: str = ""
    after: str = ""

    def directory(self, reports: Path, name: str) -> Path:
        return reports / f"{self.before}{name}{self.after}"

    def named(self, reports: Path, name: str) -> Path:
        """As ``directory``, for a name that a user gave. Raises ``BadInputError`` for what is no name of a folder."""
        return self.directory(reports, self._checked(name))

    def name(self, directory: Path) -> str:
        return directory.name.removeprefix(self.before).removesuffix(self.after)

    def address(self, directory: Path) -> str:
        """What ``meliuscli show`` takes: ``study:NAME``."""
        return f"{self.what}:{self.name(directory)}"

    def directories(self, reports: Path) -> list[Path]:
        """All folders of this kind, without those that are being made."""
        found = reports.glob(f"{self.before}*{self.after}/{self.marker}") if reports.is_dir() else ()
        return sorted(marker.parent for marker in found if not marker.parent.name.startswith("."))

    def resume_command(self, directory: Path, storage: str | None = None) -> str:
        """The command line that goes on with the work in a folder; with what workers share in ``storage``, as a worker."""
        place = _place(directory)
        if storage is not None:
            name = self.name(directory)
            return shlex.join(["meliuscli", "worker", self.option, name, "--storage", storage, *place])
        named = ["--resume", *([] if self.option == "--resume" else [self.option])]
        name = self.address(directory) if self.option == "--resume" else self.name(directory)
        return shlex.join(["meliuscli", self.command, *named, name, *place])

    def report_command(self, directory: Path, storage: str = "journal") -> str:
        """The command line that writes the report of a study whose trainings are done, from what workers share if they do."""
        shared = [] if storage == "journal" else ["--storage", storage]
        return shlex.join(["meliuscli", "report", self.address(directory), *shared, *_place(directory)])

    def lock(self, directory: Path) -> filelock.BaseFileLock:
        """Hold a folder for writing, until it is released. Raises ``BadInputError`` when another process holds it,
        ``MissingError`` where nothing can be written."""
        import filelock

        from meliuscli.results import cannot_write

        held = filelock.FileLock(directory / ".lock")
        try:
            held.acquire(timeout=0)
        except filelock.Timeout:
            raise BadInputError(
                f"{self.address(directory)}: another process is writing this {self.what}", "wait until it has ended"
            ) from None
        except OSError as error:
            raise cannot_write(directory, error) from None
        return held

    @contextmanager
    def held(self, directory: Path) -> Iterator[None]:
        """Hold a folder for writing as long as the context lasts. Raises as ``lock``."""
        lock = self.lock(directory)
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def reading(self, path: Path) -> Iterator[None]:
        """While a file of this kind is read: raises ``BadInputError`` for one that is not there, torn or of something else."""
        from meliuscli.results import NewerRecord

        try:
            yield
        except NewerRecord:
            raise
        except OSError as error:
            raise BadInputError(
                f"{path}: cannot be read: {error.strerror}", f"restore it, or {self._give_up}"
            ) from None
        except (ValueError, KeyError, TypeError, RecursionError, BadInputError) as error:
            raise BadInputError(
                f"{path}: not a {self.what}: {why_unread(error)}", f"restore it, or {self._give_up}"
            ) from None

    @property
    def _give_up(self) -> str:
        return "delete its directory to give the run up" if self.option == "--resume" else "start again with --force"

    def make(self, reports: Path, given: str | None, default: str, force: bool, files: Mapping[str, str]) -> Path:
        """A fresh folder with these files, there from one moment to the next. A name that the user gave must be free;
        the default name takes the next free number."""
        from meliuscli.results import cannot_write, write_text

        base = default if given is None else self._checked(given)
        directory, number = self.directory(reports, base), 1
        if force:
            self._delete(directory)
        while directory.exists() and given is None:
            number += 1
            directory = self.directory(reports, f"{base}-{number}")
        hint = f"continue it with --resume, replace it with --force, or choose another {self.option}"
        if directory.exists():
            raise BadInputError(f"{directory} exists", hint)
        made = directory.with_name(f".{directory.name}-{os.getpid()}")
        try:
            made.mkdir(parents=True)
            for name, content in files.items():
                write_text(made / name, content)
            made.rename(directory)
        except OSError as error:
            shutil.rmtree(made, ignore_errors=True)
            if directory.exists():
                raise BadInputError(f"{directory} exists", hint) from None
            raise cannot_write(directory, error) from None
        except BaseException:  # a full disk, Ctrl-C
            shutil.rmtree(made, ignore_errors=True)
            raise
        return directory

    def find(self, reports: Path, given: str | None, default: str) -> Path:
        """The folder to continue: the one named, or the youngest of the default name."""
        if given is not None:
            directory = reports / self._checked(given)
        else:
            found = [path for path in self.directories(reports) if path.name.startswith(default)]
            if not found:
                raise BadInputError(f"no {self.what} {default} in {reports}", self.named_in(reports))
            directory = max(found, key=lambda path: (path / self.marker).stat().st_mtime)
        if not (directory / self.marker).is_file():
            hint = f"leave --resume out to start one; {self.named_in(reports)}"
            raise BadInputError(f"{directory}: no {self.what} to resume", hint)
        return directory

    def mark_done(self, directory: Path) -> None:
        """Write down that all of a work is done; whoever goes on with it writes its marker anew."""
        from meliuscli.results import read_record, write_record

        write_record(directory / self.marker, {**read_record(directory / self.marker), "is_done": True})

    def named_in(self, reports: Path) -> str:
        """A hint: what there is to name."""
        there = map(self.name, self.directories(reports))
        if not (names := ", ".join(there)):
            return f"there is no {self.what} in {reports}; --reports names another place"
        return f"name it with {self.option}: {names}"

    def _checked(self, name: str) -> str:
        if not name or Path(name).name != name or name in (".", ".."):
            raise BadInputError(f"{self.option} {name!r}: must be a plain folder name")
        return name

    def _delete(self, directory: Path) -> None:
        """Delete a folder that nobody is writing; refuse anything that is not of this kind."""
        if not directory.exists():
            return
        if not (directory / self.marker).is_file():
            raise BadInputError(f"{directory} is not a {self.what}; --force does not delete it")
        with self.held(directory):
            shutil.rmtree(directory)


def _place(directory: Path) -> list[str]:
    """The option that says where a folder lies, if it needs one."""
    return [] if directory.parent == REPORTS else ["--reports", str(directory.parent)]


RUN = Kind("run", "train", "--resume", "run.json", "run-", ".checkpoint")
STUDY = Kind("study", "search", "--study", "study.json")
CHECK = Kind("check", "check-proxy", "--name", "check.json")
