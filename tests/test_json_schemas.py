"""What every command writes as JSON is what its published schema says. ``MELIUSCLI_UPDATE_GOLDEN=1`` widens the schemas by
what is written now."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import json_schemas
import pytest
import typer
from conftest import TINY_SPACE, run_here, write_small_idx
from json_schemas import FOLDER, PUBLISHED

import meliuscli as mc
from meliuscli.arch.families.dense import MeliusNetSpec
from meliuscli.cli.app import COMMANDS, make_app
from meliuscli.counting.conventions import CONVENTIONS
from meliuscli.nn.build import build
from meliuscli.packed.timing import Samples, Timed
from meliuscli.report.answers import SCHEMA_VERSION
from meliuscli.report.bench import bench_answer
from meliuscli.training.weights import save_weights
from meliuscli.work.folders import RUN

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
DOUBTED = """
from torch import nn

class Told(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.unused = nn.Conv2d(3, 64, 3), nn.Linear(5, 5)
        self.conv.weight_bits, self.head = 4, nn.Linear(64, 5000)

    def forward(self, x):
        return self.head(self.conv(x).mean((2, 3)))
"""
"""It says of its weights what they are not, has a layer that is never called, and linear MACs that a convention leaves out."""
RECIPE = """
max_gradient_norm = 1.0
ema_decay = 0.9
crop_scale = [0.5, 1.0]
shift = 0
validate_at = [0.5]
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
    """Hold an answer against its schema; by the words that other programs know too, where their package is there."""
    json_schemas.hold(name, value)
    if importlib.util.find_spec("jsonschema") is not None:
        import jsonschema

        schema = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
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
        ("recipe", "show recipe:proxy"),
        ("recipe", "show recipe:mine.toml"),
        ("space", "show space:mine-space.toml"),
        ("config", "train --print-config --seeds 1"),
        ("count", "count doubted.py:Told --input 32"),
        ("compare", "compare doubted.py:Told --input 32"),
        ("predict", "predict meliusnet22 --set num_blocks=[6,8,8,6]"),
        ("network", "show tfc"),
    ],
)
def test_an_answer_is_as_its_schema_says(say: Say, name: str, words: str) -> None:
    Path("own.py").write_text(OWN)
    Path("doubted.py").write_text(DOUBTED)
    Path("mine.toml").write_text(RECIPE)
    space = TINY_SPACE.replace("[proxy]\n", '[proxy]\nteacher = "resnet18"\n')
    Path("mine-space.toml").write_text(space.replace("[proxy.recipe]\n", "[proxy.recipe]\ndistill_weight = 0.5\n"))
    hold(name, say(*words.format(root=ROOT).split()))


@pytest.mark.parametrize("rule", CONVENTIONS)
def test_counts_by_every_convention_are_as_their_schemas_say(say: Say, rule: str) -> None:
    """Some have no unit of operations."""
    Path("own.py").write_text(OWN)
    networks = ("tfc", "own.py:make_net")
    hold("compare", say("compare", *networks, "--input", "32", "--convention", rule))
    hold("count", say("count", "birealnet18", "--no-verify", "--convention", rule, "--by", "block"))


def test_runs_of_every_kind_are_listed_and_shown_as_their_schemas_say(say: Say) -> None:
    """Of one seed, imported, failed, interrupted, unfinished, and one that cannot be read."""
    run = mc.import_weights(small_weights(Path("net.safetensors")), reports=Path("runs"))
    record = {key: value for key, value in run.fields.items() if key != "imported"}
    scored = {"validation_top1": {"mean": 0.5, "spread": None}, "test_top1": {"mean": 0.5, "spread": None}}
    seed = {**record["runs"][0], "validation_top1": 0.5, "test_top1": 0.5, "train_loss": 0.1, "seconds": 1.5}
    one = {**record, **scored, "id": "aaaaaaa1", "runs": [{**seed, "images_per_second": 9.5}]}
    noted = {**run.fields, "id": "aaaaaaa5", "imported": {**run.fields["imported"], "notes": ["what does not fit"]}}
    kinds = (
        one,
        noted,
        {**one, "id": "aaaaaaa2", "failed": "it diverges"},
        {**one, "id": "aaaaaaa3", "interrupted": True},
    )
    for fields in kinds:
        Path("runs", f"run-{fields['id']}.json").write_text(json.dumps(fields))
    place = RUN.directory(Path("runs"), "aaaaaaa4")
    place.mkdir()
    plan = {**one, "id": "aaaaaaa4", "seeds": 3}
    (place / RUN.marker).write_text(json.dumps({"plan": plan, "runs": plan["runs"]}))
    Path("runs", "run-bbbbbbbb.json").write_text("{}")
    listed = say("list", "runs", "--reports", "runs")
    hold("list", listed)
    states = {row["id"]: row["state"] for row in listed["runs"]}
    assert sorted(states.values()) == [
        *("failed", "finished", "imported", "imported", "interrupted", "unfinished", "unreadable")
    ]
    for name in (name for name, state in states.items() if state != "unreadable"):
        hold("run", say("show", f"run:{name}", "--reports", "runs"))
    networks = ("tfc", f"run:{run.id}", "run:aaaaaaa1")
    hold("compare", say("compare", *networks, "--reports", "runs", "--convention", "larq"))
    hold("count", say("count", f"run:{run.id}", "--reports", "runs"))


def small_weights(path: Path) -> Path:
    """An untrained network for the embedded images."""
    fields = {"stem": "thumbnail", "stem_channels": 32, "input_size": 32, "input_channels": 1, "num_classes": 10}
    spec = MeliusNetSpec(num_blocks=(1, 1), growth_rate=16, transition_channels=(32,), groups=4, **fields)
    save_weights(build(spec).eval(), spec, path)
    return path


def test_files_are_evaluated_counted_and_shown_as_their_schemas_say(say: Say) -> None:
    pytest.importorskip("llvmlite", reason="packed files need llvmlite: pip install 'meliuscli[packed]'")
    run = mc.import_weights(small_weights(Path("net.safetensors")), reports=Path("runs"))
    mc.pack(mc.load_trained(f"run:{run.id}", reports=Path("runs")), Path("net.packed.safetensors"))
    hold("evaluation", say("evaluate", "net.packed.safetensors", "--limit", "10"))
    for name, words in (("count", ("--no-verify",)), ("network", ()), ("compare", ())):
        command = {"network": "show"}.get(name, name)
        hold(name, say(command, "net.packed.safetensors", *words))


@pytest.mark.parametrize("way", ["eager", "onnxruntime", "C"])
def test_a_measurement_of_what_is_not_packed_is_as_its_schema_says(way: str) -> None:
    """A module of one's own in torch alone, an ONNX file, a directory of C."""
    samples = Samples((0.1, 0.2), (0.1, 0.2))
    archid = None if way == "eager" else "0123456789ab"
    file_bytes = 2000 if way == "onnxruntime" else None
    timed = Timed("net", archid, (3, 8, 8), 1, 1, {way: samples}, {"compiled": "no compiler"}, 0.0, 1000, file_bytes)
    hold("bench", {"schema_version": SCHEMA_VERSION, **bench_answer([timed]).value()})


def test_trainings_evaluations_and_answers_are_as_their_schemas_say(say: Say) -> None:
    write_small_idx(Path())
    run = say(*TRAIN)
    hold("run", run)
    name = f"run:{run['id']}"
    hold("run", say("show", name, "--reports", "runs"))
    hold("list", say("list", "runs", "--reports", "runs"))
    hold("compare", say("compare", "meliusnet22", name, "--reports", "runs"))
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


def test_every_command_with_json_has_a_schema() -> None:
    group: Any = typer.main.get_command(make_app([]))
    with_json = {name for name in COMMANDS if any(one.name == "fmt" for one in group.commands[name].params)}
    assert with_json == set(PUBLISHED)
    assert all((FOLDER / f"{name}.json").is_file() for name in PUBLISHED.values())
