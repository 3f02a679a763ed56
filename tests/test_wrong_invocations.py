"""A campaign in small: command lines made wrong at random end in an answer or a refusal, soon, and in little memory."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_wrong_invocations_have_no_fault() -> None:
    script = Path(__file__).parent / "benchmarks" / "wrong_invocations.py"
    path = f"{script.parents[2]}:{os.environ.get('PYTHONPATH', '')}"
    done = subprocess.run(
        [sys.executable, str(script), "100", "1"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^100 invocations: .*'exit 2': \d+.* 0 faults", done.stdout, re.MULTILINE)
