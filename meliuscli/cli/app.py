"""The command line: its commands, and errors turned into messages and exit codes."""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import inspect
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

# A quick command is mostly imports; looking for garbage in what they make finds none and costs a tenth of the time.
gc.disable()

import typer
from typer.core import TyperCommand, TyperOption

from meliuscli.cli.configuration import as_words, configured, key_of, table_of_settings
from meliuscli.cli.console import (
    be_quiet,
    complain,
    end_talk,
    give,
    is_configured,
    is_given,
    log_to,
    say_what_is_done,
    speak_any_encoding,
    talk,
)
from meliuscli.errors import BadInputError, InterruptedByUser, MeliusError, MissingError
from meliuscli.memory import lacks_memory
from meliuscli.version import __version__
from meliuscli.work.interrupts import hear_interrupts, was_interrupted

COMMANDS = (
    *("count", "compare", "predict", "list", "show", "explain", "cite", "paper-tables"),
    *("search", "worker", "report", "check-proxy", "train", "evaluate", "bench", "export", "import"),
)

SUFFIXES = {".json": "json", ".csv": "csv", ".tex": "latex", ".md": "markdown"}
"""Of files to which answers are written -> the format that they promise."""


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
        epilog="Exit codes: 0 done, 1 the answer is no, 2 bad input, 3 something missing, 130 interrupted, 70 our bug.",
    )
    app.callback()(_options)
    named = _named(words)
    for name in (named,) if named in COMMANDS else COMMANDS:
        file = "import_" if name == "import" else name.replace("-", "_")
        module = importlib.import_module(f"meliuscli.cli.{file}")
        command = getattr(module, "list_" if name == "list" else file)
        app.command(name, cls=_Command, **_help_of(command))(_guarded(command))
    return app


def _named(words: Sequence[str]) -> str | None:
    """The command that these arguments name, if it is one."""
    return next((word for word in words if not word.startswith("-")), None)


def _help_of(command: Callable[..., None]) -> dict[str, Any]:
    """A command's help from its docstring: the summary of the list of commands, its first sentence; the text; and, at the
    end, the example, which is the docstring's last paragraph."""
    paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    example = paragraphs.pop() if paragraphs[-1].startswith("Example: ") else None
    summary = " ".join(paragraphs[0].split())
    return {"short_help": summary, "help": "\n\n".join(paragraphs), "epilog": example}


class _Command(TyperCommand):
    """A command whose options are given once, or are made to be given several times, and come from configuration where
    the command line has none."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if ctx.resilient_parsing or {"-h", "--help"} & set(args):
            return super().parse_args(ctx, args)
        _, _, given = self.make_parser(ctx).parse_args(args=list(args))
        options = [one for one in given if isinstance(one, TyperOption) and not (one.multiple or one.is_flag)]
        for option, times in Counter(options).items():
            if times > 1:
                name = max(option.opts, key=len)
                raise BadInputError(f"{name} is given {times} times, and takes one value", "give it once")
        known = {key_of(one): one for one in self.params if isinstance(one, TyperOption)}
        ctx.obj = configured(str(self.name), known, COMMANDS)
        ctx.default_map = {name: setting.value for name, setting in ctx.obj.items()}
        if "--print-config" in args:
            for one in self.params:
                one.required = False
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            asked, error.message = error.param, error.message.removeprefix("Value error, ")
            if not (isinstance(asked, TyperOption) and is_configured(ctx, asked.name)):
                raise
            raise BadInputError(f"{ctx.obj[asked.name].place}: {key_of(asked)}: {error.message}") from None

    def invoke(self, ctx: Any) -> Any:
        if ctx.params["print_config"]:
            give(table_of_settings(ctx, ctx.obj), ctx.params.get("fmt", "table"), ctx.params.get("output"))
            return None
        if words := as_words(ctx):
            from meliuscli.results import add_to_command

            add_to_command(words)
        if ctx.params.get("output") == Path("-") and "to" not in ctx.params:
            ctx.params["output"] = None  # stdout
        if "output" in ctx.params:
            if ctx.params.get("to") != "c":  # a directory, which export looks at
                _check_output(ctx.params["output"], ctx.params.get("reports"))
            asked = ctx.params.get("fmt") if is_given(ctx, "fmt") else None
            named = _named_by(ctx.params["output"], asked, "fmt" in ctx.params)
            if named is not None:
                ctx.params["fmt"] = named
        return super().invoke(ctx)


PrintConfig = Annotated[
    bool,
    typer.Option("--print-config", help="Show each option's value, and where it comes from, and do nothing else."),
]


def _guarded(command: Callable[..., None]) -> Callable[..., None]:
    """The command, with what Typer would treat in its own way turned into what ``main`` treats, and with the option that
    ``_Command`` heeds for all."""
    signature = inspect.signature(command, eval_str=True)

    @functools.wraps(command)
    def guarded(*args: Any, print_config: bool, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt:
            raise InterruptedByUser("interrupted") from None
        except BrokenPipeError:
            raise _ReaderLeft from None

    asked = inspect.Parameter("print_config", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=PrintConfig)
    guarded.__signature__ = signature.replace(parameters=[*signature.parameters.values(), asked])  # type: ignore[attr-defined]
    guarded.__annotations__ = {**guarded.__annotations__, "print_config": PrintConfig}
    return guarded


def _check_output(output: Path | None, reports: Path | None) -> None:
    """Refuse a file that cannot be written before the work whose answer it is to hold; the directory of ``reports`` is made
    on the way. Raises ``MissingError``."""
    if output is not None and output.parent != reports:
        from meliuscli.results import require_directory

        require_directory(output, "--output")
        if output.is_dir():
            raise MissingError(f"--output {output}: it is a directory: name a file")


def _named_by(output: Path | None, asked: str | None, has_formats: bool) -> str | None:
    """The format that the suffix of ``--output`` names, if any; ``asked`` is that of ``--format``.

    Raises ``BadInputError`` where the suffix contradicts ``--format``, or promises what the command cannot write."""
    suffix = "" if output is None else output.suffix.lower()
    named = SUFFIXES.get(suffix)
    if named is None:
        return None
    if not has_formats:
        raise BadInputError(f"--output {output}: this answer is text, not {named}", "choose another suffix")
    if asked not in (None, named):
        raise BadInputError(f"--output {output}: {suffix} is for {named}, and --format is {asked}", "leave one out")
    return named


QUIET, VERBOSE = {"--quiet", "-q"}, {"--verbose", "-v"}


class _ReaderLeft(Exception):
    """Whoever read our stdout has left (``| head``): nothing more to say."""


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
        _leave(error.exit_code)
    except KeyboardInterrupt:  # while modules are imported
        complain("interrupted", None)
        _leave(InterruptedByUser.exit_code)
    except _ReaderLeft:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter flushes once more
        _leave(0)
    except OSError as error:  # what the system refuses is no bug of ours
        _debug_traceback()
        name = _shortened(str(error.filename)) if error.filename else "the system"
        complain(f"{name}: {error.strerror or error}", "choose another place or name")
        _leave(MissingError.exit_code)
    except Exception as error:
        _debug_traceback()
        if was_interrupted():  # what a library made of it
            complain("interrupted", None)
            _leave(InterruptedByUser.exit_code)
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
