"""Experiment trackers hear what was measured, and change nothing of it."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from conftest import run_here, write_small_idx

from meliuscli.errors import BadInputError, MissingError
from meliuscli.report.trackers import TRACKERS, reporting_to
from meliuscli.runs import list_runs
from meliuscli.work.listener import Listener

Calls = list[tuple[Any, ...]]
TRAIN = (
    *("train", "meliusnet22", "--set", "num_blocks=[1,1]", "--set", "transition_channels=[32]", "--input-size", "8"),
    *("--width-divisor", "8", "--epochs", "6", "--seeds", "1", "--batch-size", "60", "--compile", "off"),
    *("--dataset", "idx", "--data", ".", "--format", "json"),
)
CALLED = {
    "wandb": ("init", "Settings"),
    "mlflow": ("set_tracking_uri", "set_experiment", "start_run", "log_params", "log_metrics", "end_run"),
    "trackio": ("init", "log", "finish"),
}
"""Package -> its functions that are used."""


class Recorder:
    """Anything that is called on it is written down, and gives it back."""

    def __init__(self, calls: Calls, name: str = "") -> None:
        self._calls, self._name = calls, name

    def __getattr__(self, name: str) -> Recorder:
        return Recorder(self._calls, name)

    def __call__(self, *args: Any, **options: Any) -> Recorder:
        self._calls.append((self._name, *args, options))
        sys.stdout.write("a tracker that talks\n")
        torch.rand(1)  # what a tracker draws is not what the training draws
        return self


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Calls:
    """What the stand-ins of all trackers' packages are called with; they run in an empty directory with a small data set."""
    made: Calls = []
    monkeypatch.chdir(tmp_path)
    write_small_idx(tmp_path)
    for package, names in CALLED.items():
        module = ModuleType(package)
        for name in names:
            setattr(module, name, Recorder(made, f"{package}.{name}"))
        monkeypatch.setitem(sys.modules, package, module)
    board = ModuleType("torch.utils.tensorboard")
    board.SummaryWriter = Recorder(made, "tensorboard.SummaryWriter")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    return made


def digest(folder: Path) -> str:
    (path,) = folder.glob("*.safetensors")
    header = int.from_bytes(path.read_bytes()[:8], "little")
    return hashlib.sha256(path.read_bytes()[8 + header :]).hexdigest()


def test_a_run_is_told_and_its_weights_stay_the_same_to_the_bit(
    calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    run_here(*TRAIN, "--reports", "without")
    capsys.readouterr()
    run_here(*TRAIN, "--reports", "with", "--report-to", "tensorboard,wandb, mlflow,trackio")
    printed = capsys.readouterr().out
    ((run,), _) = list_runs(Path("with"))
    assert json.loads(printed)["id"] == run.id, "stdout is the answer alone"
    assert digest(Path("with")) == digest(Path("without"))
    (trained,) = run.fields["runs"]
    losses = [one[2] for one in calls if one[:2] == ("add_scalar", "validation_loss")]
    assert losses == [metrics["validation_loss"] for metrics in trained["curve"]]
    (began,) = (one[-1] for one in calls if one[0] == "wandb.init")
    assert (began["mode"], began["project"], began["name"]) == ("offline", "meliuscli", run.id)
    assert began["config"]["recipe"]["batch_size"] == 60
    logged = [one[1] for one in calls if one[0] == "log"]
    assert logged[-1] == {"seed-0/step": 90, "seed-0/test_top1": trained["test_top1"]}
    sent = [one for one in calls if one[0] == "mlflow.log_metrics"]
    assert [one[-1]["step"] for one in sent] == [15, 30, 45, 60, 75, 90, 90]
    assert next(one[1] for one in calls if one[0] == "mlflow.set_tracking_uri").endswith("/with/mlflow.db")
    assert [one[0] for one in calls if "finish" in one[0] or "end_run" in one[0]] == [
        "finish",
        "mlflow.end_run",
        "trackio.finish",
    ]


@pytest.mark.slow
def test_a_search_tells_its_trials_and_finals(calls: Calls, tiny_space: Path) -> None:
    words = ("--trials", "3", "--finalists", "1", "--final-seeds", "1", "--workers", "1", "--format", "json")
    run_here(
        *("search", "--space", str(tiny_space), "--budget", "5e7", "--study", "s", "--report-to", "mlflow"), *words
    )
    assert ("mlflow.start_run", {"run_name": "s"}) in calls
    values = [one[1] for one in calls if one[0] == "mlflow.log_metrics"]
    trials = [one for one in values if "trials/ops" in one]
    assert len(trials) == 3
    assert all(one["trials/ops"] > 0 for one in trials)
    assert any("trials/validation_top1" in one for one in trials)
    assert any(key.startswith("finals/found-") and key.endswith("test_top1") for one in values for key in one)


def test_a_tracker_that_is_not_installed_is_one_line_before_any_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "wandb", None)  # type: ignore[arg-type]
    with pytest.raises(MissingError, match="--report-to wandb: its package is not installed") as caught:
        run_here("train", "meliusnet22", "--report-to", "wandb")
    assert caught.value.hint == "pip install 'meliuscli[wandb]'"
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(BadInputError, match="unknown tracker 'wandv'"):
        run_here("train", "meliusnet22", "--report-to", "wandv")


def test_every_tracker_has_its_extra() -> None:
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    assert all(f"\n{name} = [" in text for name in TRACKERS)


class Hearing(Listener):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def talk(self, message: str) -> None:
        self.notes.append(message)


def test_a_tracker_that_fails_is_told_no_more_and_nothing_ends(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(sys.modules["mlflow"], "log_metrics", full)
    hearing = Hearing()
    with reporting_to(["mlflow", "trackio"], Path("reports"), hearing) as listener:
        listener.begun("work", {})
        for step in range(2):
            listener.measured("trials", step, {"accuracy": 0.5})
    assert hearing.notes == ["warning: mlflow is told no more: OSError: disk full"]
    assert len([one for one in calls if one[0] == "trackio.log"]) == 2


def test_tensorboard_itself_reads_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed: pip install 'meliuscli[tensorboard]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with reporting_to(["tensorboard"], tmp_path) as listener:
        listener.begun("work", {"trials": 2})
        for step, value in ((1, 0.25), (2, 0.5)):
            listener.measured("seed-0", step, {"validation_top1": value})
    events = EventAccumulator(str(tmp_path / "tensorboard" / "work" / "seed-0")).Reload()
    assert [(one.step, one.value) for one in events.Scalars("validation_top1")] == [(1, 0.25), (2, 0.5)]
