"""Runs that are killed, interrupted or left without disk: what was written goes on to the same result, bit for bit."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Cli, write_small_idx
from safetensors.torch import load_file

from meliuscli.arch.adapt import at_input
from meliuscli.arch.families.dense import MeliusNetSpec
from meliuscli.arch.zoo import load_arch
from meliuscli.data.batches import Prepared, prepare
from meliuscli.data.catalog import load_dataset
from meliuscli.errors import BadInputError, FailedError, InterruptedByUser
from meliuscli.nn.build import build
from meliuscli.report.runs import run_table, runs_table
from meliuscli.runs import list_runs, load_run, weights_path
from meliuscli.training.checkpoint import Checkpoint, Progress
from meliuscli.training.loop import Training
from meliuscli.training.recipe import Recipe
from meliuscli.training.reopen import resume_run
from meliuscli.training.run import RunResult, train_once
from meliuscli.training.seeds import conduct_run
from meliuscli.training.start import Wanted, begin_run

SPEC = at_input(
    MeliusNetSpec(num_blocks=(1, 1), transition_channels=(16,), growth_rate=16, stem_channels=16),  # type: ignore[call-arg, arg-type]
    10,
    1,
    8,
)
RECIPE = Recipe(epochs=2.5, batch_size=50, learning_rate=0.05, betas=(0.9, 0.99), shift=1)
TRAIN = (
    *("train", "--arch", "meliusnet22", "--set", "num_blocks=[1,1]", "--set", "transition_channels=[32]"),
    *("--input-size", "8", "--width-divisor", "8", "--epochs", "6", "--seeds", "2", "--batch-size", "60"),
    *("--recipe-set", "ema_decay=0.99", "--dataset", "idx"),
)


@pytest.fixture(scope="module")
def data() -> Prepared:
    """1000 images to train on, five epochs a second."""
    whole = prepare(load_dataset("fashion-mnist-mini"), 8)
    train, validation, test = (
        (images[:1000], labels[:1000]) for images, labels in (whole.train, whole.validation, whole.test)
    )
    return replace(whole, train=train, validation=validation, test=test)


def begin(data: Prepared, recipe: Recipe) -> Training:
    torch.manual_seed(7)
    return Training(build(SPEC, recipe.clip_threshold, recipe.sign_gradient), data, recipe, 7)


def weights(training: Training) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in training.result.state_dict().items()}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "sgd", "learning_rate": 0.1, "ema_decay": 0.9},
        {"optimizer": "adamw", "accumulate": 2, "batch_size": 100},
    ],
)
@pytest.mark.parametrize("stops", [0, 3, 5])
def test_after_any_step_a_training_goes_on_bit_for_bit(
    data: Prepared, tmp_path: Path, changes: dict[str, Any], stops: int
) -> None:
    """Steps within an epoch, at its end and before the first; with each kind of state that an optimiser has."""
    recipe = RECIPE.model_copy(update={"batch_size": 200, "epochs": 1.6, **changes})
    whole = begin(data, recipe)
    wanted = [metrics for metrics in whole.steps() if metrics]
    stopped = begin(data, recipe)
    given = [metrics for metrics in islice(stopped.steps(), stops) if metrics]
    checkpoint = Checkpoint(tmp_path / "a.safetensors", {"seed": 7})
    checkpoint.save(stopped, Progress(stopped.step, tuple(given), 1.5))
    torch.rand(3)  # what happens elsewhere does not matter
    again = begin(data, recipe)
    progress = checkpoint.restore(again)
    assert progress == Progress(min(stops, whole.num_steps), tuple(given), 1.5)
    assert [*given, *(metrics for metrics in again.steps() if metrics)] == wanted
    assert all(torch.equal(value, weights(again)[name]) for name, value in weights(whole).items())


def interrupted(after: int) -> Callable[[Training], None]:
    def stop(training: Training) -> None:
        if training.step == after:
            raise InterruptedByUser("")

    return stop


def test_an_interrupted_run_goes_on_to_the_same_result(data: Prepared, tmp_path: Path) -> None:
    whole = train_once(SPEC, data, RECIPE, 1, score_test=True)
    checkpoint = Checkpoint(tmp_path / "run" / "seed1.safetensors", {"seed": 1})
    with pytest.raises(InterruptedByUser):
        train_once(SPEC, data, RECIPE, 1, True, checkpoint=checkpoint, on_step=interrupted(33))
    assert checkpoint.path.is_file()
    done = train_once(SPEC, data, RECIPE, 1, True, checkpoint=checkpoint)
    assert (done.curve, done.test_top1) == (whole.curve, whole.test_top1)
    assert done.seconds > 0


def test_long_epochs_are_written_down_in_between(
    data: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meliuscli.training.run.SAVE_SECONDS", 0.0)
    checkpoint = Checkpoint(tmp_path / "a.safetensors", {})

    def die(training: Training) -> None:
        if training.step == 5:
            raise RuntimeError("as if killed")

    with pytest.raises(RuntimeError):
        train_once(SPEC, data, RECIPE, 1, checkpoint=checkpoint, on_step=die)
    assert checkpoint.restore(begin(data, RECIPE)).step == 4


def flip(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda content: b"", "corrupt"),
        (lambda content: b"no checkpoint", "corrupt"),
        (lambda content: content[:-1], "corrupt"),
        (lambda content: content[: len(content) // 2], "corrupt"),
        (lambda content: flip(content, len(content) - 1), "not what was written"),
        (lambda content: content.replace(b'seconds\\": 9.0', b'seconds\\": 8.0'), "not what was written"),
    ],
)
def test_a_corrupt_checkpoint_is_refused(
    data: Prepared, tmp_path: Path, spoil: Callable[[bytes], bytes], says: str
) -> None:
    checkpoint = Checkpoint(tmp_path / "a.safetensors", {"seed": 7})
    checkpoint.save(begin(data, RECIPE), Progress(seconds=9.0))
    content = checkpoint.path.read_bytes()
    assert spoil(content) != content
    checkpoint.path.write_bytes(spoil(content))
    with pytest.raises(BadInputError, match=says) as caught:
        checkpoint.restore(begin(data, RECIPE))
    assert str(checkpoint.path) in caught.value.message


def test_a_foreign_checkpoint_is_refused(data: Prepared, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    Checkpoint(path, {"network": "x", "seed": 7}).save(begin(data, RECIPE), Progress())
    for foreign in ({"network": "y", "seed": 7}, {"network": "x", "seed": 8}, {"data": "z"}):
        with pytest.raises(BadInputError, match="a checkpoint of another training: its"):
            Checkpoint(path, foreign).restore(begin(data, RECIPE))
    other = RECIPE.model_copy(update={"optimizer": "sgd", "ema_decay": 0.9})
    with pytest.raises(BadInputError, match="does not fit"):
        Checkpoint(path, {}).restore(begin(data, other))
    # The weights of a network are a safetensors file too.
    path.write_bytes(b"")
    from meliuscli.training.weights import save_weights

    save_weights(build(SPEC), SPEC, path)
    with pytest.raises(BadInputError, match="corrupt, or no checkpoint"):
        Checkpoint(path, {}).restore(begin(data, RECIPE))


def test_a_training_that_diverged_leaves_the_last_good_checkpoint(data: Prepared, tmp_path: Path) -> None:
    training, checkpoint = begin(data, RECIPE), Checkpoint(tmp_path / "a.safetensors", {})
    checkpoint.save(training, Progress())
    before = checkpoint.path.read_bytes()
    training.advance()
    with torch.no_grad():
        training.parameters[3] = float("nan")
    with pytest.raises(FailedError, match="not finite"):
        checkpoint.save(training, Progress(1))
    assert checkpoint.path.read_bytes() == before


# From the command line


def start(directory: Path, *args: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "meliuscli", *args]
    return subprocess.Popen(
        command, cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **options
    )


def wait_for_epoch(process: subprocess.Popen[str], count: int) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if re.match(rf"{count} of \d+ epochs: ", line):
            return
    raise AssertionError("it ended before")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1000 images to train on and 300 to test on, in MNIST's format."""
    directory = tmp_path_factory.mktemp("idx")
    write_small_idx(directory)
    return directory


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, files: Path) -> Path:
    """Where a run was trained without a break."""
    directory = tmp_path_factory.mktemp("whole")
    process = start(directory, *TRAIN, "--data", str(files))
    process.communicate(timeout=300)
    assert process.returncode == 0
    return directory


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, files: Path) -> Path:
    """Where the same run was killed in its second seed."""
    directory = tmp_path_factory.mktemp("killed")
    process = start(directory, *TRAIN, "--data", str(files))
    wait_for_epoch(process, 8)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    return directory


def unfinished(directory: Path) -> tuple[Path, str]:
    """The checkpoint directory of the one unfinished run, and the run's name."""
    (found,) = (directory / "reports").glob("*.checkpoint")
    return found, f"run:{found.name.removeprefix('run-').removesuffix('.checkpoint')}"


def go_on(directory: Path) -> None:
    """What ``meliuscli train --resume`` does, in this process."""
    ready = resume_run(unfinished(directory)[1], None, directory / "reports")
    _, failure = conduct_run(ready)
    if failure is not None:
        raise failure


def test_a_checkpoint_left_of_a_seed_that_is_finished_does_no_harm(killed: Path, tmp_path: Path) -> None:
    shutil.copytree(killed / "reports", tmp_path / "reports")
    directory, run = unfinished(tmp_path)
    (directory / "seed0.safetensors").write_bytes(b"")  # as if killed before it was removed
    go_on(tmp_path)
    assert list((tmp_path / "reports").glob("*.checkpoint")) == []
    with pytest.raises(BadInputError, match="is finished"):
        resume_run(run, None, tmp_path / "reports")


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets torch's threads, for this test alone."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_two_threads_go_on_to_the_bits_of_an_uninterrupted_run_too(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: Callable[[int], None]
) -> None:
    """Those of one thread may be others, so a run goes on with as many as it was begun with."""
    monkeypatch.setattr(RunResult, "is_at_chance", lambda *_: False)  # five steps teach nothing
    named, sizes = load_arch("meliusnet22", ["num_blocks=[1,1]", "transition_channels=[64]"]), (1, 16, 4)
    recipe = Recipe(epochs=0.6, batch_size=100, learning_rate=0.05, betas=(0.9, 0.99))
    wanted = Wanted(named, "idx", files, False, recipe, *sizes, True, None, "cpu", "off")

    def trained(stop: bool) -> dict[str, torch.Tensor]:
        threads(2)
        ready = begin_run(wanted, tmp_path)
        on_step = interrupted(3 if stop else 0)
        try:
            list(ready.session.train(ready.data, None, lambda metrics: None, on_step))
        except InterruptedByUser as error:
            ready.session.finish(error)
            threads(1)
            ready = resume_run(f"run:{ready.session.plan.id}", None, tmp_path)
            list(ready.session.train(ready.data, None, lambda metrics: None, lambda training: None))
        record = ready.session.finish(None)
        assert record is not None
        assert record["execution"]["threads"] == torch.get_num_threads() == 2
        return load_file(weights_path(tmp_path, record["id"], 0))

    whole, stopped = trained(stop=False), trained(stop=True)
    assert all(torch.equal(value, stopped[name]) for name, value in whole.items())


def test_an_unfinished_run_is_listed_and_shown_with_how_to_go_on(killed: Path, cli: Cli) -> None:
    """It was killed in the second epoch of its second seed, or right after."""
    _, run = unfinished(killed)
    (record,) = json.loads(cli("list", "runs", "--format", "json", cwd=killed).stdout)["runs"]
    assert (record["id"], record["state"], record["n"], record["seeds"]) == (run[4:], "unfinished", 1, 2)
    assert 2 <= record["epochs_done"] < record["epochs"] == 6
    assert record["resume"] == f"meliuscli train --resume {run}"
    listed = cli("list", "runs", cwd=killed).stdout
    left = f"1 of 2 trainings are finished, the next is at epoch {record['epochs_done']:g} of 6"
    assert f"{run} is unfinished: {left}\n  go on with: {record['resume']}\n" in listed
    shown = cli("show", run[:8], cwd=killed)
    assert shown.returncode == 0, shown.stderr
    assert f"unfinished: {left}\ngo on with: {record['resume']}\n" in shown.stdout
    assert "seed 0" in shown.stdout
    assert "seed 1" not in shown.stdout
    value = json.loads(cli("show", run, "--reports", f"{killed}/reports", "--format", "json").stdout)
    assert value["validation_top1"] == {"mean": value["runs"][0]["validation_top1"], "spread": None}
    assert value["unfinished"]["resume"] == f"meliuscli train --resume {run} --reports {killed}/reports"
    refused = cli("export", "--weights", run, "--to", "packed", cwd=killed)
    assert refused.returncode == 2
    assert f"{run} is not finished" in refused.stderr
    assert f"hint: go on with: {record['resume']}" in refused.stderr


def test_a_run_interrupted_after_a_seed_is_listed_once(killed: Path, tmp_path: Path) -> None:
    """It has a record too."""
    shutil.copytree(killed / "reports", tmp_path / "reports")
    ready = resume_run(unfinished(tmp_path)[1], None, tmp_path / "reports")
    assert ready.session.finish(InterruptedByUser("")) is not None
    ((run,), broken) = list_runs(tmp_path / "reports")
    assert (run.fields["interrupted"], run.fields["n"], broken) == (True, 1, {})
    assert run.left is not None
    assert load_run(run.id, tmp_path / "reports").left is None
    (record,) = runs_table([run], broken).records
    assert record["state"] == "unfinished"
    (failed,) = runs_table([replace(run, fields={**run.fields, "failed": "why"})], broken).records
    assert (failed["state"], failed["problem"], failed["resume"]) == ("failed", "why", None)


def test_a_run_killed_before_its_first_seed_or_after_its_last_is_shown(killed: Path, tmp_path: Path) -> None:
    shutil.copytree(killed / "reports", tmp_path / "reports")
    directory, run = unfinished(tmp_path)
    content = json.loads((directory / "run.json").read_text())
    (directory / "run.json").write_text(json.dumps({**content, "runs": []}))
    shown = load_run(run[4:], tmp_path / "reports", unfinished=True)
    table = run_table(shown)
    assert table.rows == ()
    assert "unfinished: 0 of 2 trainings are finished, the next is at epoch 0 of 6" in table.lines
    (directory / "run.json").write_text(json.dumps({**content, "runs": 2 * content["runs"]}))
    left = load_run(run[4:], tmp_path / "reports", unfinished=True).left
    assert left is not None
    assert left.sentence.startswith("all 2 trainings are finished")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.json", None),
        ("run.json", b""),
        ("run.json", b"[]"),
        ("run.json", b"\xff"),
        ("run.json", b'{"plan": {"id": "x"}, "runs": []}'),
        ("run.json", b'{"plan": [], "runs": 3}'),
        ("seed1.safetensors", b""),
        ("seed1.safetensors", b"\xff" * 100),
        ("seed1.safetensors", b"\2\0\0\0\0\0\0\0{}"),
    ],
)
def test_a_corrupt_unfinished_run_is_listed_as_such_beside_the_others(
    whole: Path, killed: Path, tmp_path: Path, name: str, content: bytes | None
) -> None:
    reports = tmp_path / "reports"
    shutil.copytree(killed / "reports", reports)
    shutil.copytree(whole / "reports", reports, dirs_exist_ok=True)
    directory, run = unfinished(tmp_path)
    (directory / name).unlink()
    if content is not None:
        (directory / name).write_bytes(content)
    runs, broken = list_runs(reports)
    assert [each.left for each in runs] == [None]
    assert list(broken) == [run[4:]]
    table = runs_table(runs, broken)
    assert [record["state"] for record in table.records] == ["finished", "unreadable"]
    assert f"{run} cannot be read and is left out: {directory / name}" in table.lines[0]
    with pytest.raises(BadInputError, match=re.escape(str(directory / name))):
        load_run(run[4:], reports, unfinished=True)
    assert load_run(runs[0].id, reports, unfinished=True) == runs[0]


def edit_plan(directory: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = directory / "run.json"
    content = json.loads(path.read_text())
    change(content["plan"])
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda plan: plan["recipe"].update(learning_rate=0.01), "its recipe differs"),
        (lambda plan: plan["trained_as"].update(growth_rate=[16, 16]), "its network differs"),
        (lambda plan: plan["dataset"].update(digest="0"), "other data: idx"),
        (lambda plan: plan["recipe"].update(optimizer="lion"), "not a run: "),
        (lambda plan: plan.pop("seeds"), "not a run: "),
    ],
)
def test_a_plan_that_is_not_the_checkpoints_is_refused(
    killed: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], says: str
) -> None:
    shutil.copytree(killed / "reports", tmp_path / "reports")
    edit_plan(unfinished(tmp_path)[0], change)
    with pytest.raises(BadInputError, match=says):
        go_on(tmp_path)


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["--resume", "run:zz"], 2, "unknown unfinished run 'zz'"),
        (["--resume", "run:"], 2, "unknown unfinished run ''"),
        (["--resume", "run:x", "--reports", "nowhere"], 2, "no unfinished runs"),
        ([], 2, "which network?"),
    ],
)
def test_what_cannot_be_resumed(killed: Path, cli: Cli, args: list[str], code: int, says: str) -> None:
    done = cli("train", *args, cwd=killed)
    assert done.returncode == code
    assert says in done.stderr
