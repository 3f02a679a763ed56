"""Options that no command line has: environment variables, then a file, then defaults; what won is shown and written down."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from conftest import run_here, write_small_idx
from typer.core import TyperOption

from meliuscli import results
from meliuscli.cli.app import COMMANDS, make_app
from meliuscli.cli.configuration import ASKED_ONLY, SHARED, key_of
from meliuscli.errors import BadInputError, InterruptedByUser
from meliuscli.runs import list_runs

PYPROJECT = """
[project]
name = "mine"

[tool.meliuscli]
reports = "here"

[tool.meliuscli.train]
seeds = 5
input_size = 16
weights = false
recipe-set = ["ema_decay=0.99", "shift=1"]

[tool.meliuscli.search]
budget = ["1.5e8", "2e8"]
"""


@pytest.fixture(autouse=True)
def _below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project with a configuration, and a directory of it in which commands run."""
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    (tmp_path / "sub").mkdir()
    monkeypatch.setattr(results, "_configured", [])
    monkeypatch.chdir(tmp_path / "sub")


def won(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, tuple[str | None, str]]:
    """Option -> its value and where that came from."""
    run_here(*words, "--print-config", "--format", "json")
    return {row["option"]: (row["value"], row["from"]) for row in json.loads(capsys.readouterr().out)["options"]}


def test_the_command_line_wins_over_variables_over_the_file_over_defaults(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = "../pyproject.toml [tool.meliuscli.train]"
    of_file = won(capsys, "train")
    assert of_file["seeds"] == ("5", table)
    assert of_file["input-size"] == ("16", table)
    assert of_file["weights"] == ("false", table)
    assert of_file["recipe-set"] == ("ema_decay=0.99 shift=1", table)
    assert of_file["reports"] == ("here", "../pyproject.toml [tool.meliuscli]")
    assert of_file["recipe"] == ("quick", "default")
    monkeypatch.setenv("MELIUSCLI_TRAIN_SEEDS", "7")
    monkeypatch.setenv("MELIUSCLI_REPORTS", "there")
    monkeypatch.setenv("MELIUSCLI_TRAIN_RECIPE_SET", "flip=true 'shift=2'")
    of_variables = won(capsys, "train")
    assert of_variables["seeds"] == ("7", "MELIUSCLI_TRAIN_SEEDS")
    assert of_variables["reports"] == ("there", "MELIUSCLI_REPORTS")
    assert of_variables["recipe-set"] == ("flip=true shift=2", "MELIUSCLI_TRAIN_RECIPE_SET")
    monkeypatch.setenv("MELIUSCLI_TRAIN_REPORTS", "nearer")
    assert won(capsys, "train")["reports"] == ("nearer", "MELIUSCLI_TRAIN_REPORTS")
    assert won(capsys, "train", "--seeds", "2")["seeds"] == ("2", "command line")
    assert won(capsys, "search")["budget"] == ("1.5e8,2e8", "../pyproject.toml [tool.meliuscli.search]")


def test_the_nearest_file_counts_alone_and_meliuscli_toml_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    Path("pyproject.toml").write_text('[project]\nname = "below"\n')
    assert won(capsys, "train")["seeds"][0] == "5"
    Path("../meliuscli.toml").write_text("[train]\nseeds = 4\n")
    of_toml = won(capsys, "train")
    assert of_toml["seeds"] == ("4", "../meliuscli.toml [train]")
    assert of_toml["reports"] == ("reports", "default")


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        ("[train]\nsedes = 1", r"meliuscli.toml \[train\]: unknown key 'sedes'", "did you mean seeds"),
        ("[trian]\nseeds = 1", r"meliuscli.toml \[trian\]: unknown command 'trian'", "did you mean train"),
        ("report = 'x'", "meliuscli.toml: unknown key 'report'", "did you mean reports"),
        ("seeds = 1", "seeds: is not for all commands", r"write it under \[train\]"),
        ("[train]\nforce = true", "unknown key 'force'", None),
        ("[train]\nweights = 1", "weights: must be true or false", None),
        ("[train]\nseeds = true", "seeds: must be a number or a string", None),
        ("[train]\nseeds = 'many'", r"\[train\]: seeds: Input should be a valid integer", None),
        ("[train]\ndevice = 'tpu'", r"\[train\]: device: ", None),
        ("train = [", "is no configuration", None),
    ],
)
def test_what_no_option_takes_is_refused_by_file_and_key(text: str, says: str, hint: str | None) -> None:
    Path("meliuscli.toml").write_text(text)
    with pytest.raises(BadInputError, match=says) as caught:
        run_here("train", "meliusnet22")
    assert hint is None or re.match(hint, str(caught.value.hint))


def test_an_unknown_variable_of_the_command_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MELIUSCLI_TRAIN_SEDS", "1")
    with pytest.raises(BadInputError, match="variable MELIUSCLI_TRAIN_SEDS: unknown option 'seds'") as caught:
        run_here("train", "meliusnet22")
    assert str(caught.value.hint).startswith("did you mean seed")
    run_here("list", "conventions")


def test_a_directory_of_reports_that_is_configured_is_refused_by_no_list(capsys: pytest.CaptureFixture[str]) -> None:
    run_here("list", "conventions")
    with pytest.raises(BadInputError, match="none are listed"):
        run_here("list", "conventions", "--reports", "here")
    Path("here").mkdir()
    run_here("list", "studies", "--reports", "here")
    assert "studies" in capsys.readouterr().out.lower()


def test_help_needs_no_configuration_that_is_right() -> None:
    Path("meliuscli.toml").write_text("[train]\nsedes = 1")
    with pytest.raises(SystemExit) as caught:
        make_app(["train"])(["train", "--help"])
    assert caught.value.code == 0


def options_of(name: str) -> set[str]:
    group: Any = typer.main.get_command(make_app([]))
    return {key_of(one) for one in group.commands[name].params if isinstance(one, TyperOption)}


def test_what_is_shared_belongs_to_several_commands_and_every_command_shows_its_configuration() -> None:
    of_commands = {name: options_of(name) for name in COMMANDS}
    for key in SHARED:
        assert sum(key in options for options in of_commands.values()) > 1, key
    assert all("print-config" in options for options in of_commands.values())
    assert set(ASKED_ONLY) - {"help"} <= set().union(*of_commands.values())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_what_won_and_does_nothing_else(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(Path("..").rglob("*"))
    run_here(command, "--print-config")
    assert f"Options of {command}" in capsys.readouterr().out
    assert sorted(Path("..").rglob("*")) == before


TRAIN = """
[train]
set = ["num_blocks=[1,1]", "transition_channels=[32]"]
input-size = 8
width-divisor = 8
epochs = 6
seeds = 1
batch-size = 60
compile = "off"
dataset = "idx"
data = "."
format = "json"
"""


def test_a_result_says_the_command_that_repeats_it_and_an_unfinished_one_goes_on_as_it_was_begun(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_small_idx(Path())
    Path("meliuscli.toml").write_text(TRAIN)
    monkeypatch.setattr("sys.argv", ["meliuscli", "train", "meliusnet22"])
    run_here("train", "meliusnet22")
    told = json.loads(capsys.readouterr().out)
    command = told["origin"]["command"]
    assert command.startswith("meliuscli train meliusnet22 --set 'num_blocks=[1,1]'")
    assert "--epochs 6.0" in command
    assert "--format" not in command
    Path("meliuscli.toml").write_text("")
    run_here(*shlex.split(command)[1:], "--reports", "again")
    assert list_runs(Path("again"))[0][0].fields["recipe"] == told["recipe"]


def test_configuration_does_not_change_work_that_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    from meliuscli.training import seeds

    write_small_idx(Path())
    Path("meliuscli.toml").write_text(TRAIN.replace("seeds = 1", "seeds = 2"))
    told: list[int] = []

    def stop(self: Any, training: Any) -> None:
        told.append(training.step)
        if len(told) == 10:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(seeds._Watch, "on_step", stop)
        with pytest.raises(InterruptedByUser):
            run_here("train", "meliusnet22")
    ((unfinished,), _) = list_runs(Path("reports"))
    Path("meliuscli.toml").write_text("[train]\nseeds = 9\nepochs = 50\nbatch-size = 10\n")
    run_here("train", "--resume", f"run:{unfinished.id}")
    ((run,), _) = list_runs(Path("reports"))
    assert (run.fields["n"], run.fields["recipe"]["epochs"], run.fields["recipe"]["batch_size"]) == (2, 6, 60)
