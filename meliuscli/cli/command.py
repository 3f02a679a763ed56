"""What all commands have in common: their help, their options from configuration, the format that ``--output`` names, and how they
end."""

from __future__ import annotations

import functools
import inspect
import re
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperOption

from meliuscli.cli.configuration import as_words, configured, key_of, strange_variables, table_of_settings
from meliuscli.cli.console import give, is_configured, is_given, talk
from meliuscli.errors import BadInputError, InterruptedByUser, MeliusError, MissingError

COMMANDS = (
    *("count", "compare", "predict", "list", "show", "explain", "cite", "paper-tables"),
    *("search", "worker", "report", "check-proxy", "train", "evaluate", "bench", "export", "import"),
)
SUFFIXES = {".json": "json", ".csv": "csv", ".tex": "latex", ".md": "markdown"}
"""Of files to which answers are written -> the format that they promise."""


OF_OTHERS = (".onnx", ".safetensors", ".png", ".svg", ".pdf", ".html", ".htm", ".py", ".h5", ".params", ".pt", ".pth")
"""Suffixes of what no answer is."""


def help_of(command: Callable[..., None]) -> dict[str, Any]:
    """A command's help from its docstring: the summary of the list of commands, its first sentence; the text; and, at the
    end, the example, which is the docstring's last paragraph."""
    paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    example = paragraphs.pop() if paragraphs[-1].startswith("Example: ") else None
    summary = " ".join(paragraphs[0].split())
    return {"short_help": summary, "help": "\n\n".join(paragraphs), "epilog": example}


ALIKE = (
    ("--input-size", "--input"),
    ("--study", "--name"),
    ("--budget", "--max-ops"),
    ("--to", "--format"),
    ("--reports", "--output", "-o"),
)
"""Options of different commands that are taken for each other; where several are there, the first is meant."""


class Command(TyperCommand):
    """A command whose options are given once, or are made to be given several times, and come from configuration where
    the command line has none."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if ctx.resilient_parsing or {"-h", "--help"} & set(args):
            return super().parse_args(ctx, args)
        self._refuse_names_of_others(args)
        _, _, given = self.make_parser(ctx).parse_args(args=list(args))
        options = [one for one in given if isinstance(one, TyperOption) and not (one.multiple or one.is_flag)]
        for option, times in Counter(options).items():
            if times > 1:
                name = max(option.opts, key=len)
                raise BadInputError(f"{name} is given {times} times, and takes one value", "give it once")
        known = {key_of(one): one for one in self.params if isinstance(one, TyperOption)}
        for warning in strange_variables(COMMANDS):
            talk(warning, "yellow")
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

    def _refuse_names_of_others(self, args: list[str]) -> None:
        """An option that has another name here is refused with that name."""
        own = {name: one for one in self.params if isinstance(one, TyperOption) for name in one.opts}
        for word in args[: args.index("--") if "--" in args else None]:
            name = word.partition("=")[0]
            for alike in ALIKE:
                if name in alike and name not in own and (here := next((one for one in alike if one in own), None)):
                    raise BadInputError(
                        f"no such option: {name}", f"{self.name} has {here}: {str(own[here].help).partition(';')[0]}"
                    )

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
            _refuse_writing_over(ctx)
            if ctx.params.get("to") != "c":  # a directory, which export looks at
                _check_output(ctx.params["output"], ctx.params.get("reports"))
            asked = ctx.params.get("fmt") if is_given(ctx, "fmt") else None
            named = _named_by(ctx.params["output"], asked, "fmt" in ctx.params, "to" not in ctx.params)
            if named is not None:
                ctx.params["fmt"] = named
        try:
            _refuse_idle_reports(ctx)
            return super().invoke(ctx)
        except MeliusError as error:
            error.message = _with_place(ctx, error.message)
            raise


def _with_place(ctx: Any, message: str) -> str:
    """What is said of an option, with the place of its value where that is no command line."""
    for option in ctx.command.params:
        is_set = isinstance(option, TyperOption) and is_configured(ctx, option.name)
        if is_set and re.match(rf"--{key_of(option)}(?![\w-])", message):
            return f"{ctx.obj[option.name].place}: {message}"
    return message


READERS = ("count", "compare", "predict", "show", "evaluate", "bench", "export")
"""Commands that only look into ``--reports`` for what is named."""


OUTPUTS = {"output": "--output", "page": "--html", "pareto": "--pareto"}


def _refuse_writing_over(ctx: Any) -> None:
    """Refuse an answer that would be written over what it is about: a network, a space, an image that is named."""
    for name, option in OUTPUTS.items():
        if (path := ctx.params.get(name)) is None or not path.is_file():
            continue
        others = {key: value for key, value in ctx.params.items() if key not in (*OUTPUTS, "reports")}
        if any(map(partial(_is_file_of, path), _words(others))):
            raise BadInputError(f"{option} {path}: is what the answer is about", "name another file")


def _is_file_of(path: Path, word: str) -> bool:
    """Is this the file of ``FILE``, ``FILE.py:FACTORY`` or ``space:FILE``?"""
    for name in (word, word.rpartition(":")[0], word.partition(":")[2]):
        with suppress(OSError, ValueError):  # most words are no file
            if path.samefile(name):
                return True
    return False


def _words(params: Mapping[str, Any]) -> list[str]:
    """What the arguments and options name, one by one."""
    values = (value if isinstance(value, list | tuple) else [value] for value in params.values())
    return [str(word) for words in values for word in words if isinstance(word, str | Path)]


def _refuse_idle_reports(ctx: Any) -> None:
    """An option that is given is used or refused: without a run or the like there is nothing to look for, nor in a file."""
    if (reports := ctx.params.get("reports")) is not None and reports.is_file():
        raise BadInputError(f"--reports {reports}: is a file, and a directory is needed", "name another place")
    named = (word.lower().startswith(("run:", "study:", "check:")) for word in _words(ctx.params))
    if ctx.command.name in READERS and is_given(ctx, "reports") and not any(named):
        place = ctx.params["reports"]
        raise BadInputError(f"--reports {place}: is where runs lie, and none is named", "leave it out, or name run:ID")


PrintConfig = Annotated[
    bool,
    typer.Option("--print-config", help="Show each option's value, and where it comes from, and do nothing else."),
]


def as_command(command: Callable[..., None]) -> Callable[..., None]:
    """The command, with what Typer would treat in its own way turned into what ``main`` treats, and with the option that
    ``Command`` heeds for all."""
    signature = inspect.signature(command, eval_str=True)

    @functools.wraps(command)
    def guarded(*args: Any, print_config: bool, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt:
            raise InterruptedByUser("interrupted") from None

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


def _named_by(output: Path | None, asked: str | None, has_formats: bool, is_text: bool) -> str | None:
    """The format that the suffix of ``--output`` names, if any; ``asked`` is that of ``--format``.

    Raises ``BadInputError`` where the suffix contradicts ``--format``, or promises what the command cannot write."""
    suffix = "" if output is None else output.suffix.lower()
    named = SUFFIXES.get(suffix)
    if is_text and suffix in OF_OTHERS:
        raise BadInputError(f"--output {output}: this answer is text, and no {suffix} file", "choose another suffix")
    if named is None:
        return None
    if not has_formats:
        raise BadInputError(f"--output {output}: this answer is text, not {named}", "choose another suffix")
    if asked not in (None, named):
        raise BadInputError(f"--output {output}: {suffix} is for {named}, and --format is {asked}", "leave one out")
    return named
