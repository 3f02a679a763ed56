"""Distillation from the command line: a float teacher trained by it, a binary student, and teachers that cannot teach."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import run_here

from meliuscli.arch.zoo import load_arch
from meliuscli.errors import InterruptedByUser, MeliusError
from meliuscli.training.loop import Training
from meliuscli.training.recipe import find_recipe
from meliuscli.training.start import Wanted, begin_run

TEACHER = (
    *("train", "--arch", "resnet18", "--set", "num_blocks=[1,1]", "--set", "channels=[16,32]"),
    *("--set", "stem_channels=16", "--input-size", "8", "--epochs", "0.3", "--seeds", "2"),
)
SET = ("num_blocks=[1,1]", "transition_channels=[32]")
STUDENT = (
    *("train", "--arch", "meliusnet22", "--set", SET[0], "--set", SET[1], "--width-divisor", "4"),
    *("--input-size", "8", "--epochs", "0.2", "--seeds", "1"),
)


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a recorded float network in ``reports``."""
    directory = tmp_path_factory.mktemp("teachers")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        run_here(*TEACHER)
    return directory


@pytest.fixture
def reports(teachers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, for this test alone."""
    shutil.copytree(teachers / "reports", tmp_path / "reports")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "reports"


def teacher_of(reports: Path) -> tuple[Path, dict[str, Any]]:
    """The file and content of the one record that is no student's."""
    (found,) = (
        (path, record)
        for path in reports.glob("run-*.json")
        if (record := json.loads(path.read_text()))["teacher"] is None
    )
    return found


def students(reports: Path) -> list[dict[str, Any]]:
    """Their records, the oldest first."""
    records = [json.loads(path.read_text()) for path in reports.glob("run-*.json")]
    return sorted((record for record in records if record["teacher"]), key=lambda record: record["origin"]["time"])


def test_a_float_network_teaches_a_binary_one(reports: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, teacher = teacher_of(reports)
    best = max(teacher["runs"], key=lambda run: run["validation_top1"])["seed"]
    run_here(*STUDENT, "--teacher", f"run:{teacher['id'][:6]}")
    (student,) = students(reports)
    assert (student["teacher"]["run"], student["teacher"]["seed"]) == (teacher["id"], best)
    assert student["recipe"]["distill_weight"] == 0.5
    assert student["validation_top1"]["mean"] > 0.2
    assert f"teacher: {teacher['arch']}, run:{teacher['id']}, seed {best}\n" in capsys.readouterr().out


def test_the_weight_of_the_teacher_is_the_recipes_where_it_has_one(reports: Path, tmp_path: Path) -> None:
    """Another weight is another loss from the first step on, and with weight 1 labels count for nothing."""
    name = f"run:{teacher_of(reports)[1]['id']}"
    (tmp_path / "mine.toml").write_text("distill_weight = 0.9\nepochs = 0.1\nlearning_rate = 0.05\n")
    run_here(*STUDENT, "--teacher", name, "--recipe", "mine.toml")
    run_here(*STUDENT, "--teacher", name, "--recipe", "mine.toml", "--recipe-set", "distill_weight=1")
    found = {record["recipe"]["distill_weight"]: record["runs"][0]["train_loss"] for record in students(reports)}
    assert found.keys() == {0.9, 1.0}
    assert found[0.9] != found[1.0]


def test_an_interrupted_distillation_goes_on_to_the_same_result(reports: Path) -> None:
    name = f"run:{teacher_of(reports)[1]['id']}"
    run_here(*STUDENT, "--teacher", name)
    recipe = find_recipe("quick", {"epochs": 0.2})
    named = load_arch("meliusnet22", SET)
    sizes = (1, 8, 4)
    wanted = Wanted(named, "fashion-mnist-mini", None, False, recipe, *sizes, True, name, "cpu", "off")
    ready = begin_run(wanted, reports)

    def interrupt(training: Training) -> None:
        if training.step == 11:
            raise InterruptedByUser("")

    with pytest.raises(InterruptedByUser) as caught:
        list(ready.session.train(ready.data, ready.teacher, lambda metrics: None, interrupt))
    assert ready.session.finish(caught.value) is None
    run_here("train", "--resume", f"run:{ready.session.plan.id}")
    one, other = students(reports)
    assert one["id"] != other["id"]
    assert one["runs"][0]["curve"] == other["runs"][0]["curve"]
    assert one["test_top1"] == other["test_top1"]


def changed(**fields: Any) -> Callable[[Path, dict[str, Any]], None]:
    """Write the teacher's record with other fields of its network."""

    def change(path: Path, record: dict[str, Any]) -> None:
        path.write_text(json.dumps({**record, "trained_as": {**record["trained_as"], **fields}}))

    return change


def spoil(path: Path, record: dict[str, Any]) -> None:
    for weights in path.parent.glob("*.safetensors"):
        weights.write_bytes(weights.read_bytes()[:2000])


def lose(path: Path, record: dict[str, Any]) -> None:
    for weights in path.parent.glob("*.safetensors"):
        weights.unlink()


def other_data(path: Path, record: dict[str, Any]) -> None:
    path.write_text(json.dumps({**record, "dataset": {"name": "idx", "digest": "0"}}))


def failed(path: Path, record: dict[str, Any]) -> None:
    path.write_text(json.dumps({**record, "failed": "no better than chance"}))


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        (changed(num_classes=11), 2, "takes 1x8x8 and 11 classes, the student 1x8x8 and 10 classes"),
        (changed(input_size=16), 2, "takes 1x16x16 and 10 classes, the student 1x8x8 and 10 classes"),
        (changed(growth=3), 2, "growth: unknown key"),
        (changed(stem_channels=8), 2, "weights of another network"),
        (other_data, 2, "was trained on other data, or another split (idx)"),
        (failed, 2, "is a failed run: no better than chance"),
        (spoil, 2, "corrupt, or no safetensors file"),
        (lose, 3, "no such file"),
        (lambda path, record: path.write_text("{"), 2, "not a recorded run"),
        (lambda path, record: path.unlink(), 2, "no recorded runs"),
    ],
)
def test_a_teacher_that_cannot_teach_is_refused_before_anything_is_written(
    reports: Path, change: Callable[[Path, dict[str, Any]], None], code: int, says: str
) -> None:
    path, record = teacher_of(reports)
    change(path, record)
    before = sorted(reports.iterdir())
    with pytest.raises(MeliusError) as caught:
        run_here(*STUDENT, "--teacher", f"run:{record['id']}")
    assert says in caught.value.message
    assert caught.value.exit_code == code
    assert sorted(reports.iterdir()) == before


@pytest.mark.parametrize(
    ("args", "says", "hint"),
    [
        (("--teacher", "run:zzz"), "unknown run 'zzz'", "known"),
        (("--teacher", "resnet18"), "--teacher 'resnet18': not of the form run:ID", "list runs"),
        (("--teacher", "run:x", "--recipe-set", "distill_weight=0"), "need each other", "leave it out for 0.5"),
        (("--recipe-set", "distill_weight=0.5"), "need each other", "--teacher run:ID"),
        (("--teacher", "run:x", "--recipe-set", "distill_weight=2"), "distill_weight: must be less than", ""),
        (("--teacher", "run:x", "--recipe-set", "distill_temperature=0"), "distill_temperature: must be greater", ""),
    ],
)
def test_what_cannot_be_distilled(reports: Path, args: tuple[str, ...], says: str, hint: str) -> None:
    with pytest.raises(MeliusError) as caught:
        run_here(*STUDENT, *args)
    assert says in caught.value.message
    assert hint in (caught.value.hint or "")
    assert caught.value.exit_code == 2
