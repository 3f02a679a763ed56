"""The command line: its commands, and errors turned into messages and exit codes."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any, NoReturn

import typer

from meliuscli import __version__
from meliuscli.cli.compare import compare
from meliuscli.cli.console import errors
from meliuscli.cli.count import count
from meliuscli.cli.search import search
from meliuscli.cli.train import train
from meliuscli.errors import InterruptedByUser, MeliusError

app = typer.Typer(
    name="meliuscli",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Count, train, search and compare binary neural networks (MeliusNet and its peers).",
    epilog="Exit codes: 0 done, 1 the answer is no, 2 bad input, 3 something is missing, 130 interrupted, 70 our bug.",
)


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


for command in (count, compare, search, train):
    app.command()(_guarded(command))


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"meliuscli {__version__}")
        raise typer.Exit


@app.callback()
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
    try:
        app(standalone_mode=True)
    except MeliusError as error:
        _debug_traceback()
        errors.print(f"error: {error.message}", markup=False, style="red")
        if error.hint:
            errors.print(f"hint: {error.hint}", markup=False)
        _leave(error.exit_code)
    except _ReaderLeft:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter flushes once more
        _leave(0)
    except Exception as error:
        _debug_traceback()
        errors.print(f"error: {type(error).__name__}: {error}", markup=False, style="red")
        errors.print("hint: this is a bug in meliuscli; run with --debug and report it", markup=False)
        _leave(70)
    _leave(0)


def _debug_traceback() -> None:
    if os.environ.get("MELIUSCLI_DEBUG"):
        errors.print_exception()


def _leave(code: int) -> NoReturn:
    raise SystemExit(code)
