"""The command line: its commands, and errors turned into messages and exit codes."""

from __future__ import annotations

import functools
import gc
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NoReturn

# A quick command is mostly imports; looking for garbage in what they make finds none and costs a tenth of the time.
gc.disable()

import typer

from meliuscli import __version__
from meliuscli.cli.console import speak_any_encoding, talk
from meliuscli.errors import InterruptedByUser, MeliusError, MissingError

COMMANDS = (
    *("count", "compare", "predict", "list", "show", "explain", "cite", "paper-tables"),
    *("search", "check-proxy", "train", "bench", "export"),
)


def make_app(words: Sequence[str]) -> typer.Typer:
    """The command line for these arguments: with the command that they name, or with all for help and typing errors.

    Building a command's options takes longer than running ``count``, so the others are left out."""
    app = typer.Typer(
        name="meliuscli",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        help="Count, train, search and compare binary neural networks (MeliusNet and its peers).",
        epilog="Exit codes: 0 done, 1 the answer is no, 2 bad input, 3 something missing, 130 interrupted, 70 our bug.",
    )
    app.callback()(_options)
    named = next((word for word in words if not word.startswith("-")), None)
    for name in (named,) if named in COMMANDS else COMMANDS:
        attribute = name.replace("-", "_")
        module = importlib.import_module(f"meliuscli.cli.{attribute}")
        app.command(name)(_guarded(getattr(module, "list_" if name == "list" else attribute)))
    return app


def _guarded(command: Callable[..., None]) -> Callable[..., None]:
    """The command, with what Typer would treat in its own way turned into what ``main`` treats."""

    @functools.wraps(command)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt:
            raise InterruptedByUser("interrupted") from None
        except BrokenPipeError:
            raise _ReaderLeft from None

    return guarded


class _ReaderLeft(Exception):
    """Whoever read our stdout has left (``| head``): nothing more to say."""


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"meliuscli {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    if debug:
        os.environ["MELIUSCLI_DEBUG"] = "1"


def main() -> NoReturn:
    """Run the command line; every error ends in a message on stderr and its exit code."""
    gc.freeze()
    gc.enable()
    speak_any_encoding()
    try:
        make_app(sys.argv[1:])()
    except MeliusError as error:
        _debug_traceback()
        talk(f"error: {error.message}", "red")
        if error.hint:
            talk(f"hint: {error.hint}")
        _leave(error.exit_code)
    except _ReaderLeft:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter flushes once more
        _leave(0)
    except Exception as error:
        _debug_traceback()
        if _lacks_memory(error):
            talk("error: there is not enough memory for this", "red")
            talk("hint: take smaller images, a smaller batch or network, or fewer workers")
            _leave(MissingError.exit_code)
        talk(f"error: {type(error).__name__}: {error}", "red")
        talk("hint: this is a bug in meliuscli; run with --debug and report it")
        _leave(70)
    _leave(0)


def _lacks_memory(error: Exception) -> bool:
    """Did an allocation fail? Torch says so in words alone."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or "allocate memory" in said or "out of memory" in said


def _debug_traceback() -> None:
    if os.environ.get("MELIUSCLI_DEBUG"):
        traceback.print_exc()


def _leave(code: int) -> NoReturn:
    raise SystemExit(code)
