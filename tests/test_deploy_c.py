"""docs/deploy-c.md: its commands, one after the other."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs/deploy-c.md"


@pytest.mark.slow
def test_the_page_runs(tmp_path: Path) -> None:
    """As they stand, but for a training that is as short as can be, and the run's ID."""
    for program in ("cmake", "cc"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    text = PAGE.read_text(encoding="utf-8")
    (toml,) = re.findall(r"```toml\n# device\.toml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "device.toml").write_text(toml)
    (tmp_path / "bin").mkdir()
    for name, words in (("meliuscli", "-m meliuscli "), ("python", "")):
        script = tmp_path / "bin" / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words}"$@"\n')
        script.chmod(0o755)
    commands = [
        line[2:]
        for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL)
        for line in block.splitlines()
        if line.startswith("$ ")
    ]
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "NO_COLOR": "1"}
    out = ""
    for command in commands:
        command = re.sub(r"--epochs \d+", "--epochs 0.05 --threads 1", command).replace(
            "run:ID", f"run:{_run_id(tmp_path)}"
        )
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        # So short a training is no better than chance, which `train` exits 1 for; its weights are there all the same.
        allowed = (0, 1) if command.startswith("meliuscli train") else (0,)
        assert done.returncode in allowed, f"{command}\n{done.stdout}{done.stderr}"
        out += done.stdout
        if command.startswith("meliuscli count"):
            ram, flash = re.search(r"RAM ([\d,]+) bytes.*flash ([\d,]+) bytes", done.stdout).groups()  # type: ignore[union-attr]
            assert f"{ram} bytes, while the first transition runs, and flash is {flash} bytes of constants" in text
    assert "100% tests passed" in out
    assert re.search(r"^1\. .* \(logit ", out, re.MULTILINE)
    assert len(commands) == 9


def _run_id(directory: Path) -> str:
    records = list(directory.glob("reports/run-*.json"))
    return records[0].stem.removeprefix("run-") if records else "ID"
