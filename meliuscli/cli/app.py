"""The command line: its commands, and errors turned into messages and exit codes."""

from __future__ import annotations

import atexit
import errno
import gc
import importlib
import os
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

# A quick command is mostly imports; looking for garbage in what they make finds none and costs a tenth of the time.
gc.disable()

import typer

from meliuscli.cli.command import COMMANDS, Command, as_command, help_of
from meliuscli.cli.console import (
    ReaderLeft,
    be_quiet,
    complain,
    end_talk,
    log_to,
    say_what_is_done,
    speak_any_encoding,
    talk,
)
from meliuscli.errors import BadInputError, InterruptedByUser, MeliusError, MissingError
from meliuscli.memory import lacks_memory
from meliuscli.version import __version__
from meliuscli.work.interrupts import exit_code, hear_interrupts, was_interrupted


def make_app(words: Sequence[str]) -> typer.Typer:
    """The command line for these arguments: with the command that they name, or with all for help and typing errors.

    Building a command's options takes longer than running ``count``, so the others are left out."""
    app = typer.Typer(
        name="meliuscli",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        help="Count, train, search and compare binary neural networks (MeliusNet and its peers).",
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog="Exit codes: 0 done, 1 the answer is no, 2 bad input, 3 something missing, 130 interrupted (143 by SIGTERM), 70 our bug.",
    )
    app.callback()(_options)
    named = _named(words)
    for name in (named,) if named in COMMANDS else COMMANDS:
        file = "import_" if name == "import" else name.replace("-", "_")
        module = importlib.import_module(f"meliuscli.cli.{file}")
        command = getattr(module, "list_" if name == "list" else file)
        app.command(name, cls=Command, **help_of(command))(as_command(command))
    return app


def _named(words: Sequence[str]) -> str | None:
    """The command that these arguments name, if it is one."""
    return next((word for word in words if not word.startswith("-")), None)


QUIET, VERBOSE = {"--quiet", "-q"}, {"--verbose", "-v"}


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"meliuscli {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; in any place.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No talk but errors; in any place.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Say at the end what it took, on what; in any place.")
    ] = False,
    log_file: Annotated[
        Path | None, typer.Option("--log-file", help="Add all talk, with its time, to this file; in any place.")
    ] = None,
) -> None:
    """These are taken out before, wherever they stand."""


def _taken(words: Sequence[str]) -> list[str]:
    """The arguments without those that may stand in any place, which are heeded; ``help COMMAND`` as ``COMMAND --help``."""
    end = words.index("--") if "--" in words else len(words)
    left = [word for word in words[:end] if word not in ("--debug", *QUIET, *VERBOSE)]
    for at, word in enumerate(left):
        name, equals, place = word.partition("=")
        if name == "--log-file" and (equals or at + 1 < len(left)):
            log_to(Path(place if equals else left[at + 1]))
            del left[at : at + (1 if equals else 2)]
            break
    if "--debug" in words[:end]:
        os.environ["MELIUSCLI_DEBUG"] = "1"
    if QUIET & set(words[:end]):
        be_quiet()
    if VERBOSE & set(words[:end]):
        atexit.register(_tell_effort, time.monotonic())
    if left[:1] == ["help"]:
        left = [*left[1:2], "--help"]
    return [*left, *words[end:]]


def _tell_effort(began: float) -> None:
    """Say what a command took, its ended worker processes included, and on what it ran."""
    from meliuscli.report.effort import effort_lines

    for line in effort_lines(began):
        talk(line)


def main() -> NoReturn:
    """Run the command line; every error ends in a message on stderr and its exit code."""
    gc.freeze()
    gc.enable()
    speak_any_encoding()
    hear_interrupts()
    try:
        _run()
    finally:
        end_talk()
        gc.freeze()  # or the interpreter looks for garbage in all of torch, which takes seconds, before it leaves


def _run() -> NoReturn:
    try:
        words = _taken(sys.argv[1:])
        if os.environ.get("RANK", "0") == "0":  # of several processes the leader speaks
            say_what_is_done(_named(words) or "meliuscli")
        make_app(words)(words)
    except MeliusError as error:
        _debug_traceback()
        complain(error.message, error.hint)
        _leave(exit_code() if isinstance(error, InterruptedByUser) else error.exit_code)
    except KeyboardInterrupt:  # while modules are imported
        complain("interrupted", None)
        _leave(exit_code())
    except ReaderLeft:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter flushes once more
        _leave(0)
    except OSError as error:  # what the system refuses is no bug of ours
        _debug_traceback()
        name = _shortened(str(error.filename)) if error.filename else "the system"
        complain(f"{name}: {error.strerror or error}", "choose another place or name")
        _leave((BadInputError if error.errno == errno.ENAMETOOLONG else MissingError).exit_code)
    except Exception as error:
        _debug_traceback()
        if was_interrupted():  # what a library made of it
            complain("interrupted", None)
            _leave(exit_code())
        if lacks_memory(error):
            complain(
                "there is not enough memory for this",
                "take smaller images, a smaller batch or network, or fewer workers",
            )
            _leave(MissingError.exit_code)
        complain(
            f"{type(error).__name__}: {error}", "this is a bug in meliuscli; run the same with --debug and report it"
        )
        _leave(70)
    _leave(0)


def _shortened(name: str) -> str:
    return name if len(name) <= 200 else f"{name[:80]}...{name[-40:]}"


def _debug_traceback() -> None:
    if os.environ.get("MELIUSCLI_DEBUG"):
        traceback.print_exc()


def _leave(code: int) -> NoReturn:
    raise SystemExit(code)
