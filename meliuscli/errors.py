"""The one exception tree: what went wrong, what to do about it, and the exit code of the command."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class MeliusError(Exception):
    """An error that is the user's to read: a message, an optional hint, and an exit code."""

    exit_code = 70

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class BadInputError(MeliusError):
    """An argument, a file or a name that cannot be used, or is not there (exit 2)."""

    exit_code = 2


class SpecError(BadInputError):
    """A network, space or recipe that cannot exist; ``key`` names the field at fault."""

    def __init__(self, key: str, problem: str, hint: str | None = None) -> None:
        super().__init__(f"{key}: {problem}", hint)
        self.key = key
        self.problem = problem


class MissingError(MeliusError):
    """Something the work needs is not there: a data set, an extra, disk, memory (exit 3)."""

    exit_code = 3


class FailedError(MeliusError):
    """The work ran and its answer is no: over the limit, diverged, not verified (exit 1)."""

    exit_code = 1


class InterruptedByUser(MeliusError):
    """Ctrl-C (exit 130) or SIGTERM (exit 143); the message says what was kept."""

    exit_code = 130


MANY = 20
"""More names than this are not put into a hint."""


LONG = 120
"""Characters of a name that a message repeats."""


def unknown_name(
    what: str, name: str, known: Iterable[str], key: str = "", listed_by: str = "meliuscli list"
) -> BadInputError:
    """The error for a name that is not in a table, with the nearest names as the hint, or what lists them all: the first
    of them where no command does (``listed_by`` is empty)."""
    known = sorted(known)
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.4)
    if len(known) > MANY and listed_by:
        all_of_them = f"{listed_by} names the {len(known)} known"
    else:
        more = f" and {len(known) - MANY} more" if len(known) > MANY else ""
        all_of_them = f"known: {', '.join(known[:MANY])}{more}"
    hint = f"did you mean {', '.join(near)}?" if near else all_of_them
    prefix = f"{key}: " if key else ""
    given = name if len(name) <= LONG else f"{name[:LONG]}..."
    return BadInputError(f"{prefix}unknown {what} {given!r}", hint)


def no_file(path: Path) -> BadInputError:
    """The error for a file that is not there, or is a directory."""
    return BadInputError(f"{path}: {'is a directory, not a file' if path.is_dir() else 'no such file'}")


def why_unread(error: Exception) -> str:
    """What is wrong with what a file holds, by the exception that reading it raised; not in the words of Python."""
    if isinstance(error, KeyError):
        return f"it has no {error}"
    if isinstance(error, TypeError | AttributeError):
        return "something in it is of another type than what is written there"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return str(error)
