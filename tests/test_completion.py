"""What TAB offers in bash, zsh and fish."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from meliuscli.cli import completion

REPORTS = Path(__file__).parents[1] / "reports"


def offered(shell: str, line: str, folder: Path) -> str:
    """What a shell gets for this command line, whose last word is being typed, as its script asks the installed command."""
    program = "import sys; sys.argv = ['meliuscli']; from meliuscli.cli.app import main; main()"
    environment = {
        **os.environ,
        "_MELIUSCLI_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": line,
        "COMP_CWORD": str(line.count(" ")),
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_offered_networks(shell: str, tmp_path: Path) -> None:
    (tmp_path / "meliusnet-mine.toml").touch()
    shown = offered(shell, "meliuscli count melius", tmp_path)
    assert "meliusnet22" in shown
    assert "meliusnet-mine.toml" in shown
    assert "reactnet-a" not in shown


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("meliuscli count --convention b", ["bnext"]),
        ("meliuscli train --dataset ci", ["cifar10", "cifar100"]),
        ("meliuscli search --space biro", []),
        ("meliuscli search --space bire", ["birealnet"]),
        ("meliuscli explain contra", ["contradictions"]),
    ],
)
def test_bash_is_offered_the_names_of_an_option(line: str, names: list[str], tmp_path: Path) -> None:
    assert offered("bash", line, tmp_path).split() == names


def test_networks_are_names_files_and_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").touch()
    Path("nets").mkdir()
    Path("nets/other.toml").touch()
    Path("reports").mkdir()
    for name in ("run-1a2b3c4d.json", "run-1a2b3c4d-seed0.safetensors", "run-5e6f7a8b.checkpoint"):
        (Path("reports") / name).touch()
    assert {"meliusnet22", "mine.toml", "nets/", "run:1a2b3c4d", "run:5e6f7a8b"} <= set(completion.networks(""))
    assert completion.networks("mel")[0] == "meliusnet22"
    assert completion.networks("nets/") == ["nets/other.toml"]
    assert completion.networks("run:1") == ["run:1a2b3c4d"]
    assert completion.networks("nowhere/") == []


def test_studies_and_checks_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPORTS.parent)
    assert completion.studies("") == ["transfer-cifar10"]
    assert completion.targets("check:") == ["check:proxy-cifar10", "check:proxy-fashion-mnist", "check:proxy-imagenet"]
    assert completion.targets("study:t") == ["study:transfer-cifar10"]


def test_names_of_every_kind() -> None:
    assert completion.conventions("r") == ["reactnet", "real2binary"]
    assert completion.datasets("cifar") == ["cifar10", "cifar100"]
    assert "paper-meliusnet59" in completion.recipes("paper")
    assert "meliusnet-cifar" in completion.spaces("melius")
    assert completion.topics("conv") == ["conventions"]
    assert completion.kinds("s") == ["spaces", "studies"]
    assert "space:meliusnet" in completion.targets("space:")
    assert "recipe:quick" in completion.targets("recipe:")
