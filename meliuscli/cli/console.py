"""Where text goes: answers to stdout or a file, talk to stderr. Rich is for terminals; pipes and files get plain text
and pay nothing for it."""

from __future__ import annotations

import codecs
import io
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from meliuscli.cli.pulse import Pulse, TorchAnnounced
from meliuscli.errors import MissingError
from meliuscli.report.answers import Answer, render
from meliuscli.report.prose import Part, part_text
from meliuscli.report.tables import WIDTH, Format, Table

if TYPE_CHECKING:
    import typer
    from rich.console import Console


IN_ASCII = {"±": "+-", "×": "x", "≤": "<=", "µ": "u", "–": "-", "—": "-", "…": "..."}


class ReaderLeft(Exception):
    """Whoever read our stdout has left (``| head``): nothing more to say."""


def speak_any_encoding() -> None:
    """Let stdout and stderr say what their encoding lacks in other characters: a finished training must not fail on its
    last line. Names of files that are no text come out with backslashes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="meliuscli")


def _in_ascii(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(
        IN_ASCII.get(char) or char.encode("ascii", "backslashreplace").decode("ascii") for char in missing
    ), error.end


codecs.register_error("meliuscli", _in_ascii)
_is_quiet = False
_log: Path | None = None


def be_quiet() -> None:
    """From now on say nothing on stderr but errors."""
    global _is_quiet
    _is_quiet = True


def is_quiet() -> bool:
    """Is nothing but errors said?"""
    return _is_quiet


def log_to(path: Path) -> None:
    """From now on write all talk, with its time, to the end of a file too. Raises ``MissingError``."""
    global _log
    _log = path
    note(f"meliuscli {shlex.join(sys.argv[1:])}")


def note(message: str) -> None:
    """Write a line to the log, where there is one."""
    if _log is None:
        return
    try:
        with _log.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {message}\n")
    except OSError as error:
        raise MissingError(f"--log-file {_log}: cannot be written: {error.strerror}") from None


def talk(message: str, style: str = "") -> None:
    """A line on stderr; one that ends with "..." says what is done next."""
    pulse.heard(message.endswith("..."))
    tell(message, style)


def tell(message: str, style: str = "") -> None:
    """A line on stderr that goes with what is being done: it needs no word on what goes on."""
    note(message)
    if not _is_quiet:
        _say(message, style)


pulse = Pulse(tell)


def say_what_is_done(command: str) -> None:
    """From now on no silence is longer than a moment. Where nothing more is known, ``command`` is at work."""
    pulse.begin(f"{command} is at work")
    sys.meta_path.insert(0, TorchAnnounced(pulse))


def end_talk() -> None:
    """What is left is leaving."""
    pulse.end()


def doing(message: str) -> AbstractContextManager[object]:
    """Work that says by itself how far it is, after its first line."""
    return pulse.doing(message, repeats=False)


def complain(message: str, hint: str | None) -> None:
    """An error, with its way out."""
    with suppress(MissingError):  # of the log
        note(f"error: {message}")
    _say(f"error: {message}", "red")
    if hint:
        _say(f"hint: {hint}")


def _say(message: str, style: str = "") -> None:
    if sys.stderr is None:
        return
    try:
        if sys.stderr.isatty():
            stderr().print(message, style=style, markup=False)
        else:
            sys.stderr.write(f"{message}\n")
            sys.stderr.flush()
    except OSError:
        # Whoever read it has left, or its disk is full: that ends no work, nor does what is left in the buffer at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def talk_of(fmt: Format, warnings: Sequence[str]) -> None:
    """Warnings on stderr, for the formats in which no line of the answer holds them."""
    for warning in warnings if fmt not in ("table", "markdown") else ():
        talk(warning)


@contextmanager
def status(message: str) -> Iterator[None]:
    """Something that takes a moment: a spinner on a terminal, elsewhere a line if it takes longer."""
    spins = is_shown()
    with (
        stderr().status(message) if spins else nullcontext(),
        pulse.doing(message, is_said=spins, repeats=not spins),
    ):
        yield


def is_shown() -> bool:
    """Is stderr a terminal that shows what is being done?"""
    return sys.stderr is not None and sys.stderr.isatty() and not _is_quiet


def answer(content: str, output: Path | None, option: str = "--output") -> None:
    """Write the answer to a file, which ``option`` names, or to stdout."""
    pulse.heard(says_it=False)
    if output is not None:
        from meliuscli.results import require_directory, write_text

        require_directory(output, option)
        write_text(output, content)
        return
    try:
        sys.stdout.write(content)
        sys.stdout.flush()
    except BrokenPipeError:
        raise ReaderLeft from None
    except OSError as error:
        # What is left in the buffer cannot be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise MissingError(f"stdout: cannot be written: {error.strerror}") from None
    except AttributeError:  # Python's stdout is None where the shell closed it
        raise MissingError("stdout: cannot be written: it is closed") from None


def _in_its_encoding(table: Table) -> Table:
    """A table of what stdout can say: its columns are as wide as what is written."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return table.said(lambda words: words.encode(encoding, "meliuscli").decode(encoding))


def give(made: Answer, fmt: Format, output: Path | None) -> None:
    """Write an answer in a format to a file, or to stdout; a terminal gets its tables drawn."""
    if fmt == "table" and output is None:
        made = replace(made, tables=tuple(map(_in_its_encoding, made.tables)))
    if fmt == "table" and output is None and sys.stdout is not None and sys.stdout.isatty():
        from meliuscli.cli.terminal import draw, has_unicode, terminal

        for index, table in enumerate(made.tables):
            draw(table, gap=index > 0)
        if made.drawing is not None and (drawn := made.drawing(terminal().width, has_unicode())):
            answer(f"\n{drawn}\n", None)
        answer(made.endings.get(fmt, ""), None)
    else:
        answer(render(made, fmt), output)


def answer_page(parts: Sequence[Part], output: Path | None) -> None:
    """The pieces of a page, with a blank line between them: as wide as the terminal, or as ``WIDTH`` elsewhere."""
    if output is None:
        parts = [_in_its_encoding(part) if isinstance(part, Table) else part for part in parts]
    if output is not None or sys.stdout is None or not sys.stdout.isatty():
        answer("\n".join(map(part_text, parts)), output)
        return
    from meliuscli.cli.terminal import draw, terminal

    width = min(terminal().width, WIDTH)
    for index, part in enumerate(parts):
        if isinstance(part, Table):
            draw(part, gap=index > 0)
        else:
            answer(("\n" if index else "") + part_text(part, width), None)


def is_given(context: typer.Context, name: str) -> bool:
    """Was the parameter on the command line?"""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def is_configured(context: typer.Context, name: str) -> bool:
    """Does the parameter's value come from an environment variable or a file of configuration?"""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "DEFAULT_MAP"


def stderr() -> Console:
    """Stderr as Rich writes to it."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)
