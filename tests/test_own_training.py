"""Training and exporting a network of the user's own file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Cli

from meliuscli.arch.own import OwnSpec, own_spec, trained_spec
from meliuscli.arch.zoo import spec_from_fields
from meliuscli.cli.export import export
from meliuscli.errors import BadInputError
from meliuscli.runs import load_run
from meliuscli.training.network import build_for_training
from meliuscli.training.trained import load_trained

FILE = """
import torch
from torch import nn
class Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x): return torch.where(x >= 0, 1.0, -1.0)
    @staticmethod
    def backward(ctx, gradient): return gradient
class BinaryConv2d(nn.Conv2d):
    def forward(self, x): return self._conv_forward(Sign.apply(x), Sign.apply(self.weight), None)
def make(num_classes=7, input_channels=3):
    print("noise")
    layers = [nn.Conv2d(input_channels, 8, 3, 2, 1), nn.BatchNorm2d(8), BinaryConv2d(8, 8, 3, 1, 1, bias=False)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))
def one_channel(): return make(10, 1)
def fixed(input_channels): return make(7, input_channels)
def maps(input_channels): return nn.Conv2d(input_channels, 4, 3)
network = make()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(FILE)
    return tmp_path / "mine.py"


SIZES = {"num_classes": 10, "input_channels": 1, "input_size": 8}


def spec_of(file: Path, factory: str) -> OwnSpec:
    return own_spec(file, factory).replace(**SIZES)


def test_the_factory_is_called_with_what_it_accepts(file: Path) -> None:
    network = build_for_training(spec_of(file, "make"))
    assert network(torch.zeros(3, 1, 8, 8)).shape == (3, 10)
    assert network.training
    assert build_for_training(spec_of(file, "make")) is not network


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("fixed", r"gives \(2, 7\) for two images, not logits of \(2, 10\)"),
        ("maps", r"gives \(2, 4, 6, 6\) for two images"),
        ("network", "each training begins with a new one"),
        ("nothing", "unknown network 'nothing'"),
    ],
)
def test_what_cannot_be_trained_is_refused(file: Path, factory: str, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        build_for_training(spec_of(file, factory))


def test_a_file_that_has_changed_is_another_network(file: Path) -> None:
    spec = spec_of(file, "make")
    file.write_text(FILE + "\n")
    with pytest.raises(BadInputError, match=r"mine\.py: has changed since it was trained"):
        build_for_training(spec)
    assert own_spec(file, "make").archid != spec.archid


def test_a_record_knows_the_file_and_no_spec_file_names_one(file: Path) -> None:
    fields = spec_of(file, "make").model_dump(mode="json")
    assert trained_spec(fields) == spec_of(file, "make")
    with pytest.raises(BadInputError, match="unknown family 'own'"):
        spec_from_fields(fields)


def test_a_record_alone_executes_nothing(file: Path, cli: Cli) -> None:
    sizes = ("--input-size", "8", "--epochs", "0.1", "--seeds", "1", "--compile", "off")
    record = json.loads(cli("train", "--arch", "mine.py:make", *sizes, "--format", "json").stdout)
    file.write_text(FILE + "\nprint('executed')\n")
    fields = {**record, "trained_as": own_spec(file, "make").replace(**SIZES).model_dump(mode="json")}
    (file.parent / "reports" / f"run-{record['id']}.json").write_text(json.dumps(fields))
    refused = cli("export", "--weights", f"run:{record['id']}", "-o", "net.onnx")
    assert refused.returncode == 2
    assert "only where the command line names it" in refused.stderr
    assert "executed\n" not in refused.stdout + refused.stderr
    assert "--arch" in refused.stderr


def test_a_module_of_ones_own_is_trained_and_found_again(file: Path, cli: Cli) -> None:
    sizes = ("--input-size", "8", "--epochs", "0.1", "--seeds", "1", "--compile", "off")
    done = cli("train", "--arch", "mine.py:make", *sizes, "--format", "json")
    record = json.loads(done.stdout)
    assert "noise" in done.stderr
    assert (record["arch"], record["trained_as"]["text"], record["n"]) == ("mine.py:make", FILE, 1)
    assert record["trained"]["params"] == 8 * 9 + 2 * 8 + 8 * 8 * 9 + 8 * 10 + 10 + 8
    (listed,) = json.loads(cli("list", "runs", "--format", "json").stdout)["runs"]
    assert listed["trained_ops"] == record["trained"]["ops"] > 0
    assert "the network that was trained" in cli("show", f"run:{record['id']}").stdout
    assert "name its file" in cli("count", f"run:{record['id']}").stderr
    named = spec_of(file, "make")
    assert load_trained(load_run(record["id"], file.parent / "reports")).spec == named
    run_in_a_comparison(f"run:{record['id']}", record, cli)
    export_of_a_run(f"run:{record['id']}", cli)


def run_in_a_comparison(run: str, record: dict[str, Any], cli: Cli) -> None:
    """With its count as recorded (nothing is executed), and its accuracy."""
    done = cli("compare", "mine.py:one_channel", run, "--input", "1x8x8", "--format", "json", "--pareto", "front.svg")
    module, trained = json.loads(done.stdout)["networks"]
    assert trained["derived"] == module["derived"]
    assert trained["total"]["weights"] == module["total"]["weights"]
    assert trained["total"]["size_bytes"] == module["total"]["size_bytes"] == record["trained"]["size_bytes"]
    assert module["run"] is None
    top1 = 100 * record["test_top1"]["mean"]
    about = {"arch": "mine.py:make", "dataset": "fashion-mnist-mini", "n": 1, "top1": top1, "spread": None}
    assert trained["run"] == {"run": record["id"], **about}
    picture = (Path(record["trained_as"]["path"]).parent / "front.svg").read_text()
    for words in (run, "top-1 of runs on fashion-mnist-mini (%)", "mine.py:one_channel, of no known top-1"):
        assert f"<!-- {words} -->" in picture
    table = cli("compare", "meliusnet22", run, "--pareto", "both.svg")
    assert "noise" not in table.stderr
    assert f"{top1:.2f}" in table.stdout
    assert f"{run} is mine.py:make on fashion-mnist-mini, n=1" in " ".join(table.stdout.split())
    assert "it was trained at 1x8x8" in cli("compare", run, "--input", "16").stderr


def export_of_a_run(run: str, cli: Cli) -> None:
    pytest.importorskip("onnxscript")
    done = cli("export", "mine.py:make", "--weights", run, "-o", "trained.onnx")
    assert done.returncode == 0, done.stderr
    assert "onnxruntime gives torch's top-1 on" in done.stdout


def test_export_of_an_untrained_module(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxscript")
    export(arch_=f"{file}:make", input_="3x8x8", output=file.parent / "mine.onnx")
    assert "at 3x8x8" in capsys.readouterr().out
    with pytest.raises(BadInputError, match="is exported --to onnx"):
        export(arch_=f"{file}:make", to="packed")
