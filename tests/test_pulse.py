"""New users saw minutes without a word, and Ctrl-C that a library made into an error of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Cli

from meliuscli.cli import console, pulse
from meliuscli.cli.progress import StageBar
from meliuscli.cli.pulse import Pulse
from meliuscli.work import interrupts


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(pulse, "QUIET_SECONDS", 0.1)
    monkeypatch.setattr(pulse, "SHORT_SECONDS", 0.05)
    return []


def test_the_innermost_is_named_once_a_silence(said: list[str]) -> None:
    beat = Pulse(said.append)
    beat.begin("search is at work")
    with beat.doing("writing the report"):
        time.sleep(0.4)
    beat.heard(says_it=False)
    time.sleep(0.4)
    beat.end()
    time.sleep(0.3)
    assert said == ["writing the report ...", "search is at work ..."]


def test_a_line_is_followed_by_what_is_done_unless_it_says_so_itself(said: list[str]) -> None:
    beat = Pulse(said.append)
    with beat.doing("measuring"):
        beat.heard(says_it=True)
        time.sleep(0.3)
        assert said == []
        beat.heard(says_it=False)
        time.sleep(0.3)
        assert said == ["measuring ..."]
    with beat.doing("trial", is_said=True, repeats=False):
        beat.heard(says_it=False)
        time.sleep(0.3)
    assert said == ["measuring ..."]


def test_a_note_among_the_steps_of_a_stage_is_followed_by_how_far_it_is(
    said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert said == []
    with StageBar("trial", 3) as bar:
        bar.step("good")
        time.sleep(0.3)
        console.talk("note: something")
        time.sleep(0.3)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" (")[0] for line in lines] == [
        "0 of 3 are done, the next trial takes a moment ...",
        "1 of 3 trials: good",
        "note: something",
        "1 of 3 are done, the next trial takes a moment ...",
    ]


def test_what_is_over_at_once_is_not_named(said: list[str]) -> None:
    beat = Pulse(said.append)
    time.sleep(0.2)
    for _ in range(20):
        with beat.doing("quick"):
            time.sleep(0.005)
    assert said == []


def test_torch_is_announced_before_it_holds_the_lock(cli: Cli) -> None:
    """Its import lets no other thread speak: five seconds were silent on a busy machine."""
    fresh = {"PYTHONUNBUFFERED": "1"}  # a process of its own, that has to load it
    done = cli("count", "meliusnet22", "--input", "32", **fresh)
    assert done.returncode == 0
    assert "loading torch ...\n" in done.stderr
    assert cli("count", "meliusnet22", "--input", "32", "-q", **fresh).stderr == ""
    assert "torch" not in cli("count", "meliusnet22", "--no-verify", **fresh).stderr


def interrupted(place: Path, said_first: str, *words: str, **environment: str) -> tuple[int, str]:
    """The exit code and stderr of a command that gets a Ctrl-C after a line of stderr that begins so."""
    process = subprocess.Popen(
        [sys.executable, "-m", "meliuscli", *words],
        cwd=place,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    first = next(line for line in process.stderr if line.startswith(said_first))
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=60)[1]
    return process.returncode, first + rest


def test_an_interrupt_that_a_library_turns_into_its_own_error_is_an_interrupt(tmp_path: Path) -> None:
    """torch.onnx.export did, and the command ended in exit 70."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, time, meliuscli.counting.analytic as a\n"
        "def swallowing(*_):\n"
        "    try:\n"
        "        print('begun', file=sys.stderr, flush=True)\n"
        "        time.sleep(30)\n"
        "    except BaseException as error:\n"
        "        raise RuntimeError('failed to export') from error\n"
        "a.count_spec = swallowing\n"
    )
    path = f"{tmp_path}:{Path(__file__).parents[1]}"
    code, err = interrupted(tmp_path, "begun", "count", "meliusnet22", PYTHONPATH=path)
    assert code == 130
    assert err.startswith("begun\n")
    assert err.endswith("error: interrupted\n")


def test_a_step_that_is_waited_for_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of twenty seconds ended before anything answered to Ctrl-C."""
    monkeypatch.setattr(interrupts, "PATIENCE_SECONDS", 0.05)
    said: list[str] = []
    with interrupts.first_interrupt_waits(lambda: said.append("waiting")) as asked:
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.3)
        assert asked()
    with interrupts.first_interrupt_waits(lambda: said.append("at once")):
        signal.raise_signal(signal.SIGINT)
    time.sleep(0.2)
    assert said == ["waiting"]


def test_a_command_leaves_as_soon_as_it_has_answered(tmp_path: Path) -> None:
    """The interpreter looked for garbage in all of torch for two to five seconds after the answer."""
    program = (
        "import gc, sys, atexit\n"
        "sys.argv = ['meliuscli', 'count', 'meliusnet22', '--input', '32']\n"
        "atexit.register(lambda: print('left to search', gc.get_count()[0], len(gc.get_objects())))\n"
        "from meliuscli.__main__ import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=True)
    found = re.search(r"left to search \d+ (\d+)", done.stdout)
    assert found is not None
    assert int(found[1]) < 1000
