"""Options that an exported file, a run or a module has no use for are refused, and what other programs print is no answer."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from conftest import run_here
from test_evaluate import SPEC

import meliuscli as mc
from meliuscli.data.batches import prepare
from meliuscli.data.catalog import load_dataset
from meliuscli.errors import BadInputError
from meliuscli.exchange import headers
from meliuscli.export.c.compiled import compiler
from meliuscli.nn.build import build
from meliuscli.training.trained import Trained
from meliuscli.training.weights import save_weights

OWN = "from torch import nn\n\ndef make(): return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(3600, 2))\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network as weights, packed, in C and, where there is onnxscript, in ONNX; a module; an image."""
    pytest.importorskip("llvmlite")
    place = tmp_path_factory.mktemp("exported")
    data = prepare(load_dataset("fashion-mnist-mini"), SPEC.input_size)
    torch.manual_seed(0)
    network = build(SPEC)
    network(data.normalise(data.train[0][:64]))
    path = place / "net.safetensors"
    save_weights(network.eval(), SPEC, path, data.preprocessing)
    trained = Trained(SPEC, network, path, preprocessing=data.preprocessing)
    mc.pack(trained, place / "net.packed.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        run_here("export", "net.packed.safetensors", "--to", "c", "-o", "net-c")
    (place / "own.py").write_text(OWN)
    (place / "cat.png").write_bytes(b"")
    try:
        import onnxscript  # noqa: F401
    except ImportError:
        return place
    mc.export(trained, place / "net.onnx")
    return place


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("evaluate net-c --threads 2", "--threads 2: a directory of C runs on one thread"),
        ("evaluate net-c --seed 1", "--seed: names a training of run:ID"),
        ("evaluate net-c --skip-bad", "--skip-bad: is for image folders, and fashion-mnist-mini is none"),
        ("evaluate net-c --reports .", "--reports .: is where runs lie, and none is named"),
        ("bench net-c --threads 2", "--threads 2: net-c is a directory of C, which runs on one thread"),
        ("bench net-c --opponents all", "--opponents all: net-c is run as it is"),
        ("bench net-c --isa avx2", "--isa avx2: is for packed kernels"),
        ("bench net.packed.safetensors --opponents quick", "--opponents quick: net.packed.safetensors is run as it is"),
        ("bench net.packed.safetensors --input 64", "is for images of its own size"),
        ("bench net.packed.safetensors --set growth_rate=32", "--set: net.packed.safetensors is what was trained"),
        ("bench meliusnet22 own.py:make --seed 3", "--seed 3: own.py:make has weights and inputs of its own"),
        ("bench own.py:make --isa avx2", "--isa avx2: is for packed kernels, and own.py:make is none"),
        ("bench meliusnet22 --reports .", "--reports .: is where runs lie"),
        ("show net-c --set growth_rate=32", "--set: net-c is what was trained"),
        ("show net-c --reports .", "--reports .: is where runs lie"),
        ("count net-c --reports .", "--reports .: is where runs lie"),
        ("compare meliusnet22 net-c --reports .", "--reports .: is where runs lie"),
        ("count net-c --bits a=1x1", "--bits is for modules of your own"),
        ("predict meliusnet22 --reports .", "--reports .: is where runs lie"),
        ("predict meliusnet22 --top 5", "--top: for images, and none are given"),
        ("predict meliusnet22 --top 3 --seed 1", "--top and --seed: for images, and none are given"),
        ("predict net-c cat.png --seed 3", "--seed: names a training of run:ID"),
        ("predict net-c cat.png --set growth_rate=3", "--set: a trained network stays what it is"),
        ("export net.packed.safetensors --to c --seed 3 -o x-c", "an exported file is written again as it is"),
        ("search --budget 5e8 --skip-bad", "--skip-bad: is for image folders"),
        ("check-proxy --skip-bad", "--skip-bad: is for image folders"),
    ],
)
def test_an_option_without_a_use_is_refused(here: Path, words: str, says: str) -> None:
    """`evaluate DIRECTORY_OF_C --threads 2` ran on one thread, and said nothing."""
    with pytest.raises(BadInputError) as caught:
        run_here(*words.split())
    assert says in caught.value.message
    assert not (here / "reports").exists()


@pytest.mark.skipif(compiler() is None, reason="there is no C compiler")
def test_a_setting_for_all_commands_is_no_option_of_this_one(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What stands in a file for every command that has the option is refused by none."""
    monkeypatch.setenv("MELIUSCLI_THREADS", "2")
    run_here("evaluate", "net-c", "--limit", "2")
    run_here("bench", "net-c", "--runs", "1", "--opponents", "none")
    assert "batch 1, 1 thread\n" in capsys.readouterr().out


@pytest.mark.parametrize("words", ["show {}", "count {} --no-verify", "bench {} --runs 1", "compare meliusnet22 {}"])
@pytest.mark.parametrize("name", ["net.packed.safetensors", "net-c"])
def test_a_header_is_read_once(here: Path, monkeypatch: pytest.MonkeyPatch, words: str, name: str) -> None:
    if "bench" in words and name == "net-c" and compiler() is None:
        pytest.skip("there is no C compiler")
    read, times = headers.read_header, []

    def counted(path: Path) -> headers.FileHeader:
        times.append(path)
        return read(path)

    monkeypatch.setattr(headers, "read_header", counted)
    run_here(*words.format(name).split())
    assert times == [Path(name)]


@pytest.mark.parametrize("name", ["net-c", "net.packed.safetensors", "net.safetensors"])
def test_a_trained_network_that_is_trained_anew_is_said(
    here: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Its weights were passed over in silence."""
    with pytest.raises(BadInputError, match="epochs: must be greater than 0"):
        run_here("train", name, "--epochs", "0")
    note = f"note: the network of {name} is trained anew: its weights are not used\n"
    assert capsys.readouterr().err == note


def test_a_packed_file_is_not_written_as_onnx_nor_onnx_as_packed(made: Path, tmp_path: Path) -> None:
    """`export(trained, "net.packed.safetensors")` wrote ONNX under that name."""
    trained = Trained(SPEC, build(SPEC), made / "net.safetensors")
    with pytest.raises(BadInputError, match="is no name of a packed file"):
        mc.pack(trained, tmp_path / "net.onnx")
    with pytest.raises(BadInputError, match="is no name of an ONNX file"):
        mc.export(trained, tmp_path / "net.packed.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["evaluate", "predict", "bench"])
def test_what_onnxruntime_says_is_no_answer(here: Path, capfd: pytest.CaptureFixture[str], command: str) -> None:
    """It announced on stdout that it falls back to the provider that had just failed."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    onnx = pytest.importorskip("onnx")
    model = onnx.load("net.onnx")
    model.graph.node[3].op_type = "Nonsense"
    onnx.save(model, "odd.onnx")
    with pytest.raises(BadInputError, match=r"odd\.onnx: not run by onnxruntime: .*Nonsense"):
        run_here(command, "odd.onnx", *(["cat.png"] if command == "predict" else []))
    assert capfd.readouterr().out == ""
