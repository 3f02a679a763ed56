"""The files of docs/recipes run, with stand-ins for what is not here: Slurm, Ray, Kubernetes, Docker."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from meliuscli.cli.app import make_app

RECIPES = Path(__file__).parents[2] / "docs" / "recipes"
if not RECIPES.is_dir():
    pytest.skip("the recipes lie in a checkout beside the tests", allow_module_level=True)

WORKER = """#!/bin/sh
# In place of meliuscli: says how it was called, and works until it is told to leave.
trap 'echo left >> "$CALLS"; exit 0' USR1 TERM
echo "$@" >> "$CALLS"
[ -n "${LONG:-}" ] || exit 0
while :; do sleep 0.05; done
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the stand-in for meliuscli writes how it was called."""
    stand_in = tmp_path / "bin" / "meliuscli"
    stand_in.parent.mkdir()
    _program(stand_in, WORKER)
    monkeypatch.setenv("PATH", f"{stand_in.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("STUDY", "night")
    monkeypatch.setenv("STORAGE", "journal:/shared/night.log")
    return tmp_path / "calls"


def _program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


EXPECTED = "worker --study night --storage journal:/shared/night.log"


def test_one_machine_starts_all_workers(calls: Path) -> None:
    subprocess.run([str(RECIPES / "one-machine.sh")], env={**os.environ, "WORKERS": "3"}, check=True, timeout=20)
    assert calls.read_text().splitlines() == [EXPECTED] * 3


class Slurm:
    """In place of ``sbatch``: starts the script of a job as Slurm does, and can warn it; ``scontrol`` notes what is requeued."""

    def __init__(self, place: Path) -> None:
        self.requeued = place / "requeued"
        _program(place / "bin" / "scontrol", f'#!/bin/sh\necho "$@" >> {self.requeued}\n')

    def sbatch(self, script: Path, task: int, **env: str) -> subprocess.Popen[bytes]:
        assert script.read_text().startswith("#!/bin/sh\n#SBATCH ")
        ids = {"SLURM_JOB_ID": str(100 + task), "SLURM_ARRAY_JOB_ID": "100", "SLURM_ARRAY_TASK_ID": str(task)}
        return subprocess.Popen(["/bin/sh", str(script)], env={**os.environ, **ids, **env}, start_new_session=True)

    @staticmethod
    def warn(job: subprocess.Popen[bytes], signal_number: int) -> None:
        """To the batch script alone, as ``--signal=B:`` has it."""
        os.kill(job.pid, signal_number)


def _wait_for(path: Path, text: str) -> None:
    for _ in range(400):
        if path.exists() and text in path.read_text():
            return
        time.sleep(0.05)
    raise AssertionError(f"{text} never came")


def test_slurm_warns_the_worker_leaves_and_the_job_is_queued_again(calls: Path, tmp_path: Path) -> None:
    slurm = Slurm(tmp_path)
    job = slurm.sbatch(RECIPES / "slurm.sbatch", 3, LONG="1")
    _wait_for(calls, EXPECTED)
    slurm.warn(job, signal.SIGUSR1)
    assert job.wait(20) == 0
    assert calls.read_text().splitlines() == [EXPECTED, "left"]
    assert slurm.requeued.read_text() == "requeue 100_3\n"
    again = slurm.sbatch(RECIPES / "slurm.sbatch", 3)
    assert again.wait(20) == 0
    assert slurm.requeued.read_text() == "requeue 100_3\n"  # the study is done


def test_slurm_cancels_and_nothing_is_queued_again(calls: Path, tmp_path: Path) -> None:
    slurm = Slurm(tmp_path)
    job = slurm.sbatch(RECIPES / "slurm.sbatch", 0, LONG="1")
    _wait_for(calls, EXPECTED)
    slurm.warn(job, signal.SIGTERM)
    assert job.wait(20) == 0
    assert calls.read_text().splitlines()[-1] == "left"
    assert not slurm.requeued.exists()


def test_the_slurm_script_asks_for_a_warning_and_may_be_requeued() -> None:
    lines = (RECIPES / "slurm.sbatch").read_text().splitlines()
    assert {"#SBATCH --signal=B:USR1@120", "#SBATCH --requeue"} <= set(lines)


def test_ray_places_workers(calls: Path, tmp_path: Path) -> None:
    (tmp_path / "ray.py").write_text(
        "def init(): pass\n"
        "def remote(**options):\n"
        "    assert options == {'num_cpus': 1, 'num_gpus': 0.25, 'max_retries': -1}\n"
        "    def placed(function):\n"
        "        function.remote = function\n"
        "        return function\n"
        "    return placed\n"
        "def get(values): return values\n"
    )
    command = [sys.executable, str(RECIPES / "ray_workers.py"), "night", "journal:/shared/night.log", "2", "0.25"]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(tmp_path)}, check=True, timeout=20)
    assert calls.read_text().splitlines() == [EXPECTED] * 2


def test_the_job_of_kubernetes_runs_the_worker(calls: Path) -> None:
    text = (RECIPES / "kubernetes.yaml").read_text()
    found = re.search(r'command: \["sh", "-c", "(.*)"\]', text)
    assert found is not None
    subprocess.run(["sh", "-c", found[1].replace('\\"', '"')], check=True, timeout=20)
    assert calls.read_text().splitlines() == [EXPECTED]
    assert "restartPolicy: OnFailure" in text


def test_the_page_names_every_recipe_and_its_commands_have_their_options() -> None:
    page = (RECIPES.parent / "many-machines.md").read_text()
    assert all(f"recipes/{path.name}" in page for path in RECIPES.iterdir())
    for line in re.findall(r"^meliuscli (.*?)(?: +#.*)?$", page, re.MULTILINE):
        words = [word for word in shlex.split(line) if word.startswith("--")]
        command = make_app([line.split()[0]]).registered_commands[0].callback
        assert command is not None
        known = {f"--{name.replace('_', '-')}" for name in command.__wrapped__.__annotations__}  # type: ignore[attr-defined]
        assert set(words) <= known, line
