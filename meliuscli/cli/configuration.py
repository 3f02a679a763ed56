"""Values of options that are not on the command line: of environment variables, then of ``meliuscli.toml`` or of
``[tool.meliuscli]`` in ``pyproject.toml``, found from the working directory upwards."""

from __future__ import annotations

import difflib
import os
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperOption

from meliuscli.cli.console import is_configured, is_given
from meliuscli.errors import BadInputError, unknown_name
from meliuscli.report.answers import Answer
from meliuscli.report.tables import Column, Table

SHARED = ("bn-params", "convention", "device", "float-bits", "format", "report-to", "reports", "threads")
"""Keys that stand outside of a command's table too, for every command that has the option."""
ASKED_ONLY = ("arch", "force", "help", "output", "print-config", "resume")
"""Options that are for one call, and are not configured."""
OF_PLACES = ("cache", "data", "debug", "kernels", "update-golden")
"""Variables of no option."""
HOW_OUTPUT_LOOKS = ("format",)
PREFIX = "MELIUSCLI_"


@dataclass(frozen=True, slots=True)
class Setting:
    """A value as it would stand on the command line (several, or a bool for a flag), and the place that it comes from."""

    value: str | bool | list[str]
    place: str


@dataclass(frozen=True, slots=True)
class _Source:
    """Keys of one place, and what an error calls it."""

    place: str
    values: Mapping[str, Any]


def configured(command: str, options: Mapping[str, TyperOption], commands: Collection[str]) -> dict[str, Setting]:
    """Parameter's name -> its setting, for the options that are configured; ``options`` are those of the command by key.

    Raises ``BadInputError`` for a key that there is not, and for a value that its option does not take."""
    keys = {key: option for key, option in options.items() if key not in ASKED_ONLY}
    settings = {}
    for source in _file_sources(command, keys, commands):
        for key, value in source.values.items():
            settings[keys[key].name] = Setting(_from_toml(keys[key], value, f"{source.place}: {key}"), source.place)
    return {**settings, **_from_environment(command, keys)}


def key_of(option: TyperOption) -> str:
    """What configuration calls an option: its long name."""
    return max(option.opts, key=len).removeprefix("--")


def _from_environment(command: str, keys: Mapping[str, TyperOption]) -> dict[str, Setting]:
    """Of variables; that of the command comes before that of all."""
    own = {_variable(f"{command}-{key}"): key for key in keys}
    shared = {_variable(key): key for key in SHARED}
    begin = _variable(f"{command}-")
    for name in os.environ:
        if name.startswith(begin) and name not in {**own, **shared}:
            unknown = name.removeprefix(begin).lower().replace("_", "-")
            raise unknown_name("option", unknown, keys, f"environment variable {name}", f"meliuscli {command} --help")
    settings = {}
    for name, key in {**shared, **own}.items():
        text = os.environ.get(name)
        if text and key in keys:
            settings[keys[key].name] = Setting(_split(text, f"{name}: {key}") if keys[key].multiple else text, name)
    return settings


def _split(text: str, where: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise BadInputError(f"{where}: {error}", "values are split as a shell does: quote what holds a space") from None


def strange_variables(commands: Collection[str]) -> list[str]:
    """A warning for each variable with our prefix that no command reads."""
    known = {_variable(name) for name in (*SHARED, *OF_PLACES)}
    begins = tuple(_variable(f"{command}-") for command in commands)
    warnings = []
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in known and not name.startswith(begins):
            near = difflib.get_close_matches(name, known, n=1)
            more = f": did you mean {near[0]}?" if near else ""
            warnings.append(f"warning: no command reads the environment variable {name}{more}")
    return warnings


def _variable(words: str) -> str:
    return PREFIX + words.replace("-", "_").upper()


def _file_sources(command: str, keys: Mapping[str, TyperOption], commands: Collection[str]) -> Iterator[_Source]:
    """What the file says for all commands, then what it says for this one. Raises ``BadInputError`` for unknown keys."""
    found = _find_file(Path.cwd())
    if found is None:
        return
    path, table, root = found
    tables = {key: value for key, value in table.items() if isinstance(value, dict)}
    others = {_as_key(key): value for key, value in table.items() if key not in tables}
    for name in tables:
        if name not in commands:
            raise unknown_name("command", name, commands, f"{path} [{root}{name}]")
    place = f"{path} [{root.removesuffix('.')}]" if root else str(path)
    for key in others:
        if key in keys and key not in SHARED:
            raise BadInputError(f"{place}: {key}: is not for all commands", f"write it under [{root}{command}]")
        if key not in SHARED:
            raise unknown_name("key", key, SHARED, place)
    yield _Source(place, {key: value for key, value in others.items() if key in keys})
    of_command = {_as_key(key): value for key, value in tables.get(command, {}).items()}
    for key in of_command:
        if key not in keys:
            raise unknown_name("key", key, keys, f"{path} [{root}{command}]", f"meliuscli {command} --help")
    yield _Source(f"{path} [{root}{command}]", of_command)


def _as_key(key: str) -> str:
    return key.replace("_", "-")


def _find_file(directory: Path) -> tuple[str, dict[str, Any], str] | None:
    """The nearest configuration: its path, its table, and what its tables' names begin with."""
    for folder in (directory, *directory.parents):
        for name, root in (("meliuscli.toml", ""), ("pyproject.toml", "tool.meliuscli.")):
            table = _table_of(folder / name, root)
            if table is not None:
                path = os.path.relpath(folder / name, directory)
                return path, table, root
    return None


def _table_of(path: Path, root: str) -> dict[str, Any] | None:
    """None where there is no configuration. A pyproject.toml without a word of us is not parsed."""
    if not path.is_file() or (root and "tool.meliuscli" not in path.read_text(encoding="utf-8", errors="replace")):
        return None
    import tomllib

    try:
        whole = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInputError(f"{path}: is no configuration: {error}", "mend it") from None
    table = whole.get("tool", {}).get("meliuscli") if root else whole
    if table is not None and not isinstance(table, dict):
        raise BadInputError(f"{path}: tool.meliuscli must be a table", "write [tool.meliuscli]")
    return table


def _from_toml(option: TyperOption, value: Any, where: str) -> str | bool | list[str]:
    """A value of TOML as words of the command line."""
    values = value if isinstance(value, list) else [value]
    if option.is_flag:
        if not isinstance(value, bool):
            raise BadInputError(f"{where}: must be true or false, and is {value!r}")
        return value
    if not values or not all(isinstance(one, str | int | float) and not isinstance(one, bool) for one in values):
        raise BadInputError(f"{where}: must be a number or a string, and is {value!r}")
    words = [str(one) for one in values]
    return words if option.multiple else ",".join(words)


# What won


def table_of_settings(context: typer.Context, settings: Mapping[str, Setting]) -> Answer:
    """Each option of a command with the value that won, and where that came from."""
    rows = []
    for option in context.command.params:
        if isinstance(option, TyperOption) and key_of(option) not in ("help", "print-config"):
            value = context.params[option.name]
            rows.append((key_of(option), _shown(value), _source(context, option.name, settings)))
    notes = ("The command line comes before environment variables, these before a file, and a file before defaults.",)
    columns = (Column("option", numeric=False), Column("value", numeric=False), Column("from", numeric=False))
    table = Table(f"Options of {context.command.name}", columns, tuple(rows), notes=notes)
    records = [dict(zip(("option", "value", "from"), row, strict=True)) for row in rows]
    return Answer((table,), lambda: {"command": context.command.name, "options": records})


def _source(context: typer.Context, name: str, settings: Mapping[str, Setting]) -> str:
    if is_configured(context, name):
        return settings[name].place
    return "command line" if is_given(context, name) else "default"


def _shown(value: Any) -> str | None:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return shlex.join(map(str, value))
    return None if value is None else str(value)


def as_words(context: typer.Context) -> list[str]:
    """The configured options, as on a command line that gives the same results without configuration."""
    words = []
    for option in context.command.params:
        if not isinstance(option, TyperOption) or not is_configured(context, option.name):
            continue
        value, name = context.params[option.name], f"--{key_of(option)}"
        if key_of(option) in HOW_OUTPUT_LOOKS:
            continue
        if option.is_flag:
            words += [name] if value else option.secondary_opts[:1]
        else:
            given: Sequence[Any] = value if option.multiple else [value]
            words += [word for one in given for word in (name, str(one))]
    return words
