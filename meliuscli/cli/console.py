"""Where text goes: answers to stdout or a file, talk to stderr. Rich is for terminals; pipes and files get plain text
and pay nothing for it."""

from __future__ import annotations

import codecs
import io
import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

from meliuscli.cli.pulse import Pulse, TorchAnnounced
from meliuscli.errors import MissingError
from meliuscli.report.answers import Answer, render
from meliuscli.report.prose import Part, part_text
from meliuscli.report.tables import WIDTH, Format, Table
from meliuscli.units import format_duration
from meliuscli.work.listener import Listener, Steps

if TYPE_CHECKING:
    import rich.progress
    import typer
    from rich.console import Console


SECONDS_BETWEEN_LINES = 3
IN_ASCII = {"±": "+-", "×": "x", "≤": "<=", "µ": "u", "–": "-", "—": "-", "…": "..."}


def speak_any_encoding() -> None:
    """Let stdout and stderr say what their encoding lacks in other characters: a finished training must not fail on its
    last line. Names of files that are no text come out with backslashes."""
    codecs.register_error("meliuscli", _in_ascii)
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


_is_quiet = False
_log: Path | None = None


def be_quiet() -> None:
    """From now on say nothing on stderr but errors."""
    global _is_quiet
    _is_quiet = True


def log_to(path: Path) -> None:
    """From now on write all talk, with its time, to the end of a file too. Raises ``MissingError``."""
    global _log
    _log = path
    _note(f"meliuscli {shlex.join(sys.argv[1:])}")


def _note(message: str) -> None:
    if _log is None:
        return
    try:
        with _log.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {message}\n")
    except OSError as error:
        raise MissingError(f"--log-file {_log}: cannot be written: {error.strerror}") from None


def talk(message: str, style: str = "") -> None:
    """A line on stderr; one that ends with "..." says what is done next."""
    _pulse.heard(message.endswith("..."))
    _tell(message, style)


def _tell(message: str, style: str = "") -> None:
    _note(message)
    if not _is_quiet:
        _say(message, style)


_pulse = Pulse(_tell)


def say_what_is_done(command: str) -> None:
    """From now on no silence is longer than a moment. Where nothing more is known, ``command`` is at work."""
    _pulse.begin(f"{command} is at work")
    sys.meta_path.insert(0, TorchAnnounced(_pulse))


def end_talk() -> None:
    """What is left is leaving."""
    _pulse.end()


def doing(message: str) -> AbstractContextManager[object]:
    """Work that says by itself how far it is, after its first line."""
    return _pulse.doing(message, repeats=False)


def complain(message: str, hint: str | None) -> None:
    """An error, with its way out."""
    with suppress(MissingError):  # of the log
        _note(f"error: {message}")
    _say(f"error: {message}", "red")
    if hint:
        _say(f"hint: {hint}")


def _say(message: str, style: str = "") -> None:
    if sys.stderr is None:
        return
    if sys.stderr.isatty():
        _stderr().print(message, style=style, markup=False)
    else:
        sys.stderr.write(f"{message}\n")
        sys.stderr.flush()


def talk_of(fmt: Format, warnings: Sequence[str]) -> None:
    """Warnings on stderr, for the formats in which no line of the answer holds them."""
    for warning in warnings if fmt not in ("table", "markdown") else ():
        talk(warning)


@contextmanager
def status(message: str) -> Iterator[None]:
    """Something that takes a moment: a spinner on a terminal, elsewhere a line if it takes longer."""
    is_shown = _is_shown()
    with (
        _stderr().status(message) if is_shown else nullcontext(),
        _pulse.doing(message, is_said=is_shown, repeats=not is_shown),
    ):
        yield


def _is_shown() -> bool:
    """Is stderr a terminal that shows what is being done?"""
    return sys.stderr is not None and sys.stderr.isatty() and not _is_quiet


def answer(content: str, output: Path | None, option: str = "--output") -> None:
    """Write the answer to a file, which ``option`` names, or to stdout."""
    _pulse.heard(says_it=False)
    if output is not None:
        from meliuscli.results import require_directory, write_text

        require_directory(output, option)
        write_text(output, content)
        return
    try:
        sys.stdout.write(content)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        # What is left in the buffer cannot be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise MissingError(f"stdout: cannot be written: {error.strerror}") from None
    except AttributeError:  # Python's stdout is None where the shell closed it
        raise MissingError("stdout: cannot be written: it is closed") from None


def give(made: Answer, fmt: Format, output: Path | None) -> None:
    """Write an answer in a format to a file, or to stdout; a terminal gets its tables drawn."""
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


class StageBar(Steps):
    """Steps of long work on stderr: a bar with the time left on a terminal, one line a step elsewhere."""

    def __init__(self, label: str, total: int, done: int = 0) -> None:
        self._label, self._total, self._done, self._quiet = label, total, done, _is_quiet
        self._bar: rich.progress.Progress | None = None
        self._doing = ExitStack()

    def __enter__(self) -> Self:
        self._started, self._first = time.monotonic(), self._done
        if self._done < self._total and not self._quiet and not _is_shown():
            talk(f"{self._next()} ...")
        self._now = self._doing.enter_context(_pulse.doing(self._next(), is_said=True, repeats=not _is_shown()))
        if _is_shown():
            import rich.progress

            self._bar = rich.progress.Progress(
                rich.progress.TextColumn("{task.description}"),
                rich.progress.BarColumn(bar_width=20),
                rich.progress.MofNCompleteColumn(),
                rich.progress.TimeElapsedColumn(),
                rich.progress.TextColumn("left"),
                rich.progress.TimeRemainingColumn(),
                console=_stderr(),
                transient=True,
                speed_estimate_period=600,
            )
            self._task = self._bar.add_task(self._label, total=self._total, completed=self._done)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._doing.close()
        if self._bar is not None:
            self._bar.stop()

    def go_on_from(self, done: int) -> None:
        """So many are done already; those before do not count for the time left."""
        self._first += done - self._done
        self._done = done
        self._now.message = self._next()

    def within(self, part: float, label: str) -> None:
        """``part`` (0 to 1) of the next step is done: a terminal's bar says so, with ``label`` in front."""
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done + part, description=label)

    def step(self, message: str) -> None:
        """One more is done."""
        self._done += 1
        self._now.message = self._next()
        if self._bar is not None:
            _note(message)
            self._bar.console.print(message, markup=False)
            self._bar.update(self._task, completed=self._done)
            return
        if self._quiet:
            return
        each = (time.monotonic() - self._started) / (self._done - self._first)
        to_do = self._total - self._done
        left = f" ({format_duration(each * to_do)} left)" if to_do > 0 else ""  # of this stage; others may follow
        _tell(f"{self._label} {self._done}/{self._total}: {message}{left}")
        _pulse.heard(says_it=to_do > 0)
        if to_do <= 0:
            self._doing.close()

    def _next(self) -> str:
        return f"{self._done} of {self._total} are done, the next {self._label} takes a moment"


class Counter:
    """Many small steps on stderr: a bar with the time left on a terminal, a line every few seconds elsewhere; nothing
    where it is not called."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._bar: rich.progress.Progress | None = None
        self._began: tuple[float, int] | None = None
        self._doing = ExitStack()

    def __enter__(self) -> Self:
        self._doing.enter_context(doing(self._label))
        return self

    def __exit__(self, *_: object) -> None:
        self._doing.close()
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, done: int, total: int) -> None:
        """``done`` of ``total`` steps are done."""
        now = time.monotonic()
        if self._began is None:
            self._began, self._told = (now, done), now
            if _is_shown():
                self._doing.enter_context(_pulse.doing(self._label, is_said=True, repeats=False))
                self._bar = _counting_bar(self._label, total)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done)
            return
        began, first = self._began
        if done > first and now - self._told >= SECONDS_BETWEEN_LINES:
            self._told = now
            left = format_duration((now - began) / (done - first) * (total - done))
            talk(f"{self._label} {done:,}/{total:,} ({left} left)")


def _counting_bar(label: str, total: int) -> rich.progress.Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(label), BarColumn(bar_width=20), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, TextColumn("left"), console=_stderr(), transient=True)
    bar.add_task("", total=total)
    bar.start()
    return bar


class Shell(Listener):
    """Tells what long work does on stderr."""

    def talk(self, message: str) -> None:
        talk(message, "yellow" if message.startswith("warning") else "")

    def status(self, message: str) -> AbstractContextManager[object]:
        return status(message)

    def stage(self, noun: str, total: int, done: int = 0) -> StageBar:
        return StageBar(noun, total, done)

    def counter(self, noun: str) -> Counter:
        return Counter(noun)


SHELL = Shell()


def _stderr() -> Console:
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)
