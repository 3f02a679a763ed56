"""The GitHub Action and the pre-commit hooks: what they run is run here."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from pages import ROOT, environment

from meliuscli.arch.zoo import load_name
from meliuscli.search.space import load_space


def run(command: list[str], folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env={**environment(folder), **variables}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(("limit", "code"), [("210M", 0), ("200M", 1)])
def test_the_action_fails_over_a_budget_and_writes_the_table(tmp_path: Path, limit: str, code: int) -> None:
    summary = tmp_path / "summary.md"
    done = run(
        ["bash", str(ROOT / ".ci" / "budget")],
        tmp_path,
        NETWORK="meliusnet22",
        INPUT="3x224x224",
        MAX_OPS=limit,
        MAX_SIZE="4MiB",
        GITHUB_STEP_SUMMARY=str(summary),
    )
    assert done.returncode == code
    assert "| part |" in summary.read_text()
    assert ("are more than --max-ops" in summary.read_text()) == (code == 1)
    assert ("are more than --max-ops" in done.stderr) == (code == 1)


def test_the_action_hands_on_every_input() -> None:
    text = (ROOT / "action.yml").read_text()
    inputs = set(re.findall(r"^  ([\w-]+):$", text.partition("runs:")[0], re.MULTILINE))
    assert inputs == set(re.findall(r"\$\{\{ inputs\.([\w-]+) \}\}", text))
    variables = set(re.findall(r"^        ([A-Z_]+):", text, re.MULTILINE))
    script = (ROOT / ".ci" / "budget").read_text()
    assert all(re.search(rf"\$\{{?{name}\b", script) for name in variables)


@pytest.mark.parametrize("hook", ["meliuscli-network", "meliuscli-space"])
def test_a_hook_refuses_a_file_that_cannot_be(hook: str, tmp_path: Path) -> None:
    entry = re.search(rf"id: {hook}\n(?:.*\n)*?  entry: (.*)\n", (ROOT / ".pre-commit-hooks.yaml").read_text())
    assert entry is not None
    good = load_name("meliusnet22").to_toml() if hook == "meliuscli-network" else load_space("meliusnet")[2]
    for name, text in (("one.toml", good), ("two.toml", good), ("bad.toml", good.replace("groups", "grups"))):
        (tmp_path / name).write_text(text)
    command = shlex.split(entry[1])
    assert run([*command, "one.toml", "two.toml"], tmp_path).returncode == 0
    done = run([*command, "one.toml", "bad.toml"], tmp_path)
    assert done.returncode == 2
    assert "grups" in done.stderr
