"""The help of every command: no option without a word, summaries whole, and at the end an example that works."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
import typer
from conftest import Cli

from meliuscli.cli.app import COMMANDS, make_app

LONG = ("search", "check-proxy")
"""Commands whose examples take minutes."""
NEEDS = {
    "evaluate": "no recorded runs",
    "import": "binarized_cifar10-resnet18-64bit-0000.params: no such file",
    "worker": "studies/night.log: there is no such journal",
}
"""Commands whose examples need what an empty directory does not have, and what they say there."""


def commands() -> dict[str, Any]:
    """Every command, as it is parsed."""
    group: Any = typer.main.get_command(make_app([]))
    return dict(group.commands)


def example(command: str) -> list[str]:
    """The words of the example behind ``meliuscli``."""
    words = shlex.split(str(commands()[command].epilog).removeprefix("Example: "))
    assert words[0] == "meliuscli"
    return words[1:]


@pytest.mark.parametrize("command", COMMANDS)
def test_no_option_is_without_help(command: str) -> None:
    assert [one.name for one in commands()[command].params if not one.help] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_ends_with_an_example_of_the_command(cli: Cli, command: str) -> None:
    last = cli(command, "--help").stdout.split("\n\n")[-1]
    assert last.strip().startswith(f"Example: meliuscli {command}")
    assert example(command)[0] == command


@pytest.mark.parametrize("command", [command for command in COMMANDS if command not in LONG])
def test_the_example_of_the_help_works(cli: Cli, command: str) -> None:
    done = cli(*example(command))
    if command in NEEDS:
        assert done.returncode in (2, 3)
        assert NEEDS[command] in done.stderr
    else:
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", LONG)
def test_the_long_example_of_the_help_works(cli: Cli, command: str) -> None:
    done = cli(*example(command))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("columns", ["40", "80", "120", "200"])
def test_no_summary_is_cut_at_any_width(cli: Cli, columns: str) -> None:
    words = " ".join(cli("--help", COLUMNS=columns).stdout.split())
    assert "..." not in words.replace("COMMAND [ARGS]...", "")
    for command in commands().values():
        assert command.short_help in words
