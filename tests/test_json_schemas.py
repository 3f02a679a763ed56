"""What every command writes as JSON is what its published schema says. ``MELIUSCLI_UPDATE_GOLDEN=1`` widens the schemas by
what is written now."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from conftest import TINY_SPACE, run_here, write_small_idx
from json_schemas import FOLDER, problems, widened

from meliuscli.cli.app import COMMANDS, make_app
from meliuscli.results import json_text

ROOT = Path(__file__).parents[1]
TRAIN = (
    *("train", "meliusnet22", "--set", "num_blocks=[1,1]", "--set", "transition_channels=[32]", "--input-size", "8"),
    *("--width-divisor", "8", "--epochs", "6", "--seeds", "2", "--batch-size", "60", "--compile", "off"),
    *("--dataset", "idx", "--data", ".", "--reports", "runs"),
)
OWN = """
from torch import nn

def make_net():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
"""
Say = Callable[..., Any]


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Run a command in an empty directory, and give its JSON."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Any:
        capsys.readouterr()
        run_here(*words, "--format", "json")
        return json.loads(capsys.readouterr().out)

    return run


def hold(name: str, value: Any) -> None:
    """Hold an answer against its schema."""
    path = FOLDER / f"{name}.json"
    schema = json.loads(path.read_text(encoding="utf-8"))
    if os.environ.get("MELIUSCLI_UPDATE_GOLDEN"):
        schema = widened(schema, value)
        path.write_text(json_text(schema), encoding="utf-8")
    assert list(problems(schema, value)) == []
    if importlib.util.find_spec("jsonschema") is not None:
        import jsonschema

        jsonschema.Draft202012Validator(schema).validate(value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("count", "count meliusnet22"),
        ("count", "count birealnet18 --no-verify --by layer --convention reactnet"),
        ("count", "count dorefanet-alexnet --no-verify"),
        ("count", "count own.py:make_net --input 32 --convention full"),
        ("compare", "compare --all"),
        ("compare", "compare meliusnet22 own.py:make_net"),
        ("predict", "predict meliusnet22 meliusnet59"),
        ("list", "list"),
        ("list", "list runs studies checks --reports {root}/reports"),
        ("network", "show meliusnet22"),
        ("network", "show reactnet-a --input 64"),
        ("study", "show study:transfer-cifar10 --reports {root}/reports"),
        ("check", "show check:proxy-cifar10 --reports {root}/reports"),
        ("space", "show space:meliusnet"),
        ("space", "show space:birealnet"),
        ("recipe", "show recipe:paper"),
        ("config", "train --print-config --seeds 1"),
    ],
)
def test_an_answer_is_as_its_schema_says(say: Say, name: str, words: str) -> None:
    Path("own.py").write_text(OWN)
    hold(name, say(*words.format(root=ROOT).split()))


def test_trainings_evaluations_and_answers_are_as_their_schemas_say(say: Say) -> None:
    write_small_idx(Path())
    run = say(*TRAIN)
    hold("run", run)
    name = f"run:{run['id']}"
    hold("run", say("show", name, "--reports", "runs"))
    hold("list", say("list", "runs", "--reports", "runs"))
    hold("evaluation", say("evaluate", name, "--reports", "runs", "--dataset", "idx", "--data", "."))
    pillow = pytest.importorskip("PIL.Image", reason="Pillow is not installed: pip install 'meliuscli[images]'")
    pillow.new("L", (28, 28), 90).save("grey.png")
    hold("classes", say("predict", name, "grey.png", "--reports", "runs"))


@pytest.mark.slow
def test_a_search_and_its_study_are_as_their_schema_says(say: Say) -> None:
    Path("tiny.toml").write_text(TINY_SPACE)
    words = ("--trials", "4", "--finalists", "1", "--final-seeds", "1", "--workers", "1", "--study", "s")
    hold("study", say("search", "--space", "tiny.toml", "--budget", "5e7", *words))
    hold("study", say("show", "study:s"))


@pytest.mark.slow
def test_a_check_is_as_its_schema_says(say: Say) -> None:
    Path("tiny.toml").write_text(TINY_SPACE)
    words = ("--networks", "8", "--long-epochs", "0.2", "--workers", "1", "--name", "c", "--at-fraction", "0.5")
    hold("check", say("check-proxy", "tiny.toml", *words))


def test_a_measurement_is_as_its_schema_says(say: Say) -> None:
    pytest.importorskip("llvmlite", reason="bench needs llvmlite: pip install 'meliuscli[packed]'")
    small = ("--set", "input_size=48", "--set", "num_classes=10", "--runs", "2", "--opponents", "quick")
    hold("bench", say("bench", "meliusnet22", *small))


PUBLISHED = {
    "count": "count",
    "compare": "compare",
    "predict": "predict",
    "list": "list",
    "show": "network",
    "search": "study",
    "report": "study",
    "train": "run",
    "check-proxy": "check",
    "evaluate": "evaluation",
    "bench": "bench",
}
"""Command -> the schema of its answer."""


def test_every_command_with_json_has_a_schema() -> None:
    group: Any = typer.main.get_command(make_app([]))
    with_json = {name for name in COMMANDS if any(one.name == "fmt" for one in group.commands[name].params)}
    assert with_json == set(PUBLISHED)
    assert all((FOLDER / f"{name}.json").is_file() for name in PUBLISHED.values())


def test_a_value_that_is_not_as_its_schema_says_is_found_out() -> None:
    schema = widened(widened({}, {"a": 1, "b": [{"c": None}]}), {"a": 2.5, "b": []})
    assert list(problems(schema, {"a": 1, "b": [{"c": None}]})) == []
    assert list(problems(schema, {"a": "x", "b": [{}], "d": 1})) == [
        "$.a is string, not number",
        "$.b[0].c is missing",
        "$.d is in no schema",
    ]
