"""Checks of proxies whose networks learn from a teacher: what is asked for, what is trained, and what is said of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_SPACE, run_here
from torch import nn

from meliuscli.arch.adapt import as_proxy
from meliuscli.arch.zoo import load_name
from meliuscli.data.batches import prepare
from meliuscli.data.catalog import load_dataset
from meliuscli.errors import BadInputError, FailedError
from meliuscli.report.ways import describe_way, teacher_lines
from meliuscli.search.check import Check, DataFacts
from meliuscli.search.plan import Changes, changed, long_way, make_plan
from meliuscli.search.space import SearchSpace, load_space
from meliuscli.training.loop import Training
from meliuscli.training.pool import Task, train_task
from meliuscli.training.recipe import Recipe
from meliuscli.training.run import RunResult, train_once
from meliuscli.training.weights import tensors_digest

MINI = "fashion-mnist-mini"
TEACHER, STUDENT = (as_proxy(load_name(name), 10, 1, 8, 16) for name in ("resnet18", "meliusnet22"))
TAUGHT = Recipe(
    epochs=0.02, batch_size=50, learning_rate=0.05, betas=(0.9, 0.99), distill_weight=0.7, distill_temperature=2.0
)
LABELS = TAUGHT.model_copy(update={"distill_weight": 0.0})
WAY = {"teacher": "ResNet18", "recipe": {"distill_weight": 0.5}}


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return load_space("meliusnet")[1]


class Says(nn.Module):
    """The same logits for every image."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(len(images), -1)


def test_the_loss_of_a_step_is_that_of_labels_and_teacher_by_their_weight() -> None:
    """The student prefers one class, and its teacher none."""
    data = prepare(load_dataset(MINI), 8)
    said = torch.zeros(10)
    said[2] = 1.5
    training = Training(Says(*said.tolist()), data, TAUGHT, 0, teacher=Says(*[3.0] * 10))
    labels = data.train[1][:50]
    of_labels = torch.stack([said.logsumexp(0) - said[label] for label in labels]).mean()
    of_teacher = 4 * sum(0.1 * (torch.tensor(0.1).log() - (said / 2).log_softmax(0)[label]) for label in range(10))
    loss = training._loss(torch.zeros(50, 1, 8, 8), labels).item()
    assert loss == pytest.approx((0.3 * of_labels + 0.7 * of_teacher).item(), rel=1e-5)


def test_a_student_has_the_teacher_that_its_seed_and_recipe_give() -> None:
    """Put together by hand, to the bit; and without a teacher the training is the one of the labels alone."""
    task = Task(STUDENT, MINI, None, TAUGHT, 5, teacher=TEACHER)
    data, kept = prepare(load_dataset(MINI), 8), list[nn.Module]()
    torch.set_num_threads(1)
    teacher = train_once(TEACHER, data, LABELS, 5, on_end=kept.append)
    by_hand = train_once(STUDENT, data, TAUGHT, 5, teacher=kept[0])
    result = train_task(task)
    assert result.curve == by_hand.curve
    assert result.taught_by is not None
    assert result.taught_by["validation_top1"] == teacher.last.validation_top1
    tensors = {name: tensor.contiguous() for name, tensor in kept[0].requires_grad_(False).state_dict().items()}
    assert result.taught_by["digest"] == tensors_digest(tensors)
    assert RunResult.from_fields(result.fields()).taught_by == result.taught_by
    untaught = train_task(Task(STUDENT, MINI, None, LABELS, 5))
    assert untaught.curve == train_once(STUDENT, data, LABELS, 5).curve != result.curve
    assert "taught_by" not in untaught.fields()


def test_a_teacher_is_narrowed_and_moved_as_its_students_are(space: SearchSpace) -> None:
    way = changed(space.proxy, {"input_size": 16, **WAY}, "x")
    assert way.teacher == "resnet18"
    assert way.teacher_spec(10, 3) == as_proxy(load_name("resnet18"), 10, 3, 16, 8)
    assert space.proxy.teacher_spec(10, 3) is None


def test_inputs_of_64x64_keep_the_stem_of_the_target(space: SearchSpace) -> None:
    ways = [changed(space.proxy, {"input_size": size}, "x") for size in (32, 64)]
    network = load_name("meliusnet22").replace(stem="grouped")
    stems = [as_proxy(network, 10, 1, way.input_size, way.width_divisor).stem for way in ways]
    assert stems == ["thumbnail", "grouped"]
    assert ["through the target's stem" in describe_way(way) for way in ways] == [False, True]


def test_a_way_with_a_teacher_is_another_and_one_without_is_what_it_was(space: SearchSpace) -> None:
    assert space.proxy.digest == "1f8ba8cf926b60e8"
    taught = changed(space.proxy, WAY, "x")
    others = [{"recipe": {"distill_weight": 0.4}}, {"teacher": "resnet34"}]
    assert len({space.proxy.digest, taught.digest, *(changed(taught, one, "x").digest for one in others)}) == 4


def test_the_long_training_has_no_teacher_but_its_own(space: SearchSpace) -> None:
    taught = space.model_copy(update={"proxy": changed(space.proxy, WAY, "x")})
    assert long_way(taught, Changes(), None, None) == long_way(space, Changes(), None, None)
    assert long_way(space, Changes(long=WAY), None, None).teacher == "resnet18"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"teacher": "resnet18"}, "x.recipe: a teacher and a distill_weight above 0 need each other, and it is 0"),
        (
            {"recipe": {"distill_weight": 0.5}},
            "x.recipe: a teacher and a distill_weight above 0 need each other, and it is 0.5",
        ),
        ({**WAY, "teacher": "resnet81"}, "unknown network 'resnet81'"),
        ({**WAY, "teacher": 18}, "x.teacher"),
    ],
)
def test_a_teacher_that_is_none_is_refused(space: SearchSpace, fields: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInputError) as caught:
        changed(space.proxy, fields, "x")
    assert says in caught.value.message


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("[final.recipe]\n", "[final.recipe]\ndistill_weight = 0.5\n", "final.recipe: distill_weight must be 0"),
        ("[proxy]\n", '[proxy]\nteacher = "resnet18"\n', "proxy.recipe: a teacher and a distill_weight above 0"),
        (
            "[proxy.recipe]\n",
            "[proxy.recipe]\ndistill_weight = 1\n",
            "proxy.recipe: a teacher and a distill_weight above 0",
        ),
    ],
)
def test_a_space_has_a_weight_where_it_has_a_teacher(tmp_path: Path, before: str, after: str, says: str) -> None:
    (tmp_path / "tiny.toml").write_text(TINY_SPACE.replace(before, after))
    with pytest.raises(BadInputError) as caught:
        load_space(str(tmp_path / "tiny.toml"))
    assert says in caught.value.message


def test_a_search_refuses_a_teacher_rather_than_passing_over_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught = TINY_SPACE.replace("[proxy]\n", '[proxy]\nteacher = "resnet18"\n')
    (tmp_path / "tiny.toml").write_text(taught.replace("[proxy.recipe]\n", "[proxy.recipe]\ndistill_weight = 0.5\n"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInputError, match=r"proxy\.teacher: a search trains its candidates without a teacher"):
        run_here("search", "--space", "tiny.toml", "--budget", "1e8")
    assert not (tmp_path / "reports").exists()


def test_a_teacher_too_deep_for_its_input_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny.toml").write_text(TINY_SPACE)
    (tmp_path / "check.toml").write_text(
        '[proxies.taught]\nteacher = "binaryalexnet"\nrecipe = { distill_weight = 0.5 }\n'
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInputError, match=r"proxy\.input_size: 8 is too small"):
        run_here("check-proxy", "tiny.toml", "--networks", "4", "--check", "check.toml")
    assert not (tmp_path / "reports").exists()


def test_a_teacher_that_learns_nothing_teaches_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunResult, "is_at_chance", lambda *of: True)
    with pytest.raises(FailedError, match=r"the teacher, .* cannot be told from chance"):
        train_task(Task(STUDENT, MINI, None, TAUGHT, 6, teacher=TEACHER))


@pytest.mark.slow
def test_a_report_says_who_taught_and_how_well_that_one_does_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.toml").write_text(TINY_SPACE)
    (tmp_path / "check.toml").write_text(
        '[proxies.taught]\nteacher = "resnet18"\nrecipe = { epochs = 0.1, distill_weight = 0.5 }\n'
    )
    args = ("check-proxy", "tiny.toml", "--networks", "4", "--long-epochs", "0.05", "--workers", "1")
    run_here(*args, "--check", "check.toml")
    path = tmp_path / "reports" / "check-tiny" / "check.json"
    trained = json.loads(path.read_text())["trainings"]
    assert not any("taught_by" in outcome["0"] for outcome in trained["proxy"].values())
    taught = [outcome["0"]["taught_by"] for outcome in trained["taught"].values()]
    assert len(taught) == 4
    assert len({one["digest"] for one in taught}) == 1
    report = (path.parent / "report.md").read_text()
    assert "- The teacher of taught, resnet18, is narrowed and trained as its students are" in report
    assert f"reaches {100 * taught[0]['validation_top1']:.2f} %. Its training" in report


def test_teachers_that_differ_are_told(space: SearchSpace, tmp_path: Path) -> None:
    """A check that went on elsewhere trains its teacher there again, to other roundings."""
    plan = make_plan("meliusnet", space, Changes(proxies={"x": WAY}), against="published")
    trained = {
        "x": {
            str(index): {"0": {"taught_by": {"digest": digest, "validation_top1": 0.8 + index / 100}}}
            for index, digest in enumerate("ab")
        }
    }
    (line,) = teacher_lines(Check(tmp_path, plan, {}, (), {}, trained))
    assert "reaches 80.00 %, 81.00 %. Not all students of a seed had the same one" in line
    trained["x"].pop("1")
    (line,) = teacher_lines(Check(tmp_path, plan, {}, (), {}, trained))
    assert "Not all" not in line


def test_a_check_goes_on_with_the_directory_that_it_was_written_with(space: SearchSpace, tmp_path: Path) -> None:
    """A relative one stays relative, so that a report can move with its data."""
    from meliuscli.search.checking import _plan_again

    plan = make_plan("meliusnet", space, Changes(), against="published").model_copy(update={"data_dir": "beside"})
    left = Check(tmp_path, plan, {MINI: DataFacts(10, 1, 5000, "0")}, (), {})
    changes = tmp_path / "check.toml"
    changes.write_text('[proxies.colour]\ndataset = "imagefolder"\n')
    again = _plan_again(left, space, {"space": "meliusnet", "changes": changes})
    assert again.data_dir == "beside"
    there = _plan_again(left, space, {"space": "meliusnet", "changes": changes, "data": tmp_path})
    assert there.data_dir == str(tmp_path.resolve())
