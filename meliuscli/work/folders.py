"""Folders of long work (a study, a check): made whole, held by one writer, found again, deleted only with --force."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from meliuscli.errors import BadInputError

if TYPE_CHECKING:
    import filelock


REPORTS = Path("reports")
"""Where long work lies unless ``--reports`` says otherwise."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a folder holds, the option that names it, and the file that marks it."""

    what: str
    option: str
    marker: str

    def lock(self, directory: Path) -> filelock.BaseFileLock:
        """Hold a folder for writing. Raises ``BadInputError`` when another process holds it."""
        import filelock

        held = filelock.FileLock(directory / ".lock")
        try:
            held.acquire(timeout=0)
        except filelock.Timeout:
            raise BadInputError(
                f"{directory}: another process is writing this {self.what}",
                f"wait for it, or use another {self.option}",
            ) from None
        return held

    def make(self, reports: Path, given: str | None, default: str, force: bool, files: Mapping[str, str]) -> Path:
        """A fresh folder with these files, there from one moment to the next. A name that the user gave must be free;
        the default name takes the next free number."""
        from meliuscli.results import cannot_write, write_text

        base = default if given is None else self._checked(given)
        directory, number = reports / base, 1
        if force:
            self._delete(directory)
        while directory.exists() and given is None:
            number += 1
            directory = reports / f"{base}-{number}"
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
        return directory

    def find(self, reports: Path, given: str | None, default: str) -> Path:
        """The folder to continue: the one named, or the youngest of the default name."""
        if given is not None:
            directory = reports / self._checked(given)
        else:
            found = [path.parent for path in reports.glob(f"{default}*/{self.marker}")]
            if not found:
                raise BadInputError(f"no {self.what} {default} in {reports}", self.named_in(reports))
            directory = max(found, key=lambda path: (path / self.marker).stat().st_mtime)
        if not (directory / self.marker).is_file():
            hint = f"leave --resume out to start one, or {self.named_in(reports)}"
            raise BadInputError(f"{directory}: no {self.what} to resume", hint)
        return directory

    def named_in(self, reports: Path) -> str:
        """A hint: what there is to name."""
        there = sorted(path.parent.name for path in reports.glob(f"*/{self.marker}"))
        if not there:
            return f"there is no {self.what} in {reports}; --reports names another place"
        return f"name it with {self.option}: {', '.join(there)}"

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
        with self.lock(directory):
            shutil.rmtree(directory)


STUDY = Kind("study", "--study", "study.json")
CHECK = Kind("check", "--name", "check.json")


def resume_study(directory: Path, storage: str | None = None) -> str:
    """The command line that goes on with a study; with one that workers share in ``storage``, as a worker."""
    place = [] if directory.parent == REPORTS else ["--reports", str(directory.parent)]
    if storage is not None:
        return shlex.join(["meliuscli", "worker", "--study", directory.name, "--storage", storage, *place])
    return shlex.join(["meliuscli", "search", "--resume", "--study", directory.name, *place])


def resume_check(directory: Path, command: str) -> str:
    """The command line that goes on with a check that ``command`` made."""
    words = [word for word in shlex.split(command) if word not in ("--resume", "--force")]
    named = any(word == "--name" or word.startswith("--name=") for word in words)
    return shlex.join([*words, *([] if named else ["--name", directory.name]), "--resume"])
