"""Exported files: run by another program, they answer as the network does."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Cli, at_size, run_here
from safetensors import safe_open
from safetensors.numpy import save

from meliuscli.arch.families.dense import MeliusNetSpec
from meliuscli.arch.spec import ArchSpec
from meliuscli.arch.zoo import load_arch, load_name, spec_from_fields
from meliuscli.counting.analytic import count_spec
from meliuscli.errors import BadInputError, FailedError, MissingError
from meliuscli.export import packed
from meliuscli.export.onnx import write_onnx
from meliuscli.export.packed import load_packed, write_packed
from meliuscli.nn.build import build
from meliuscli.packed.runner import PackedDense, PackedNetwork, pack
from meliuscli.runs import Run
from meliuscli.training.trained import load_trained
from meliuscli.training.weights import save_weights

TINY = MeliusNetSpec(
    num_blocks=(1, 1),
    growth_rate=8,
    transition_channels=(16,),
    groups=4,
    stem="thumbnail",
    stem_channels=16,
    input_size=16,
    num_classes=10,
)


def trained_like(spec: ArchSpec) -> torch.nn.Module:
    """A network whose batch norms are not the identity."""
    torch.manual_seed(0)
    network = build(spec)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.weight)
            torch.nn.init.normal_(module.bias)
            module.running_mean.normal_(0, 0.3)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    return network.eval()


def check(spec: ArchSpec, path: Path, difference: float) -> None:
    """``difference`` is in standard deviations of the logits."""
    agreement = write_onnx(trained_like(spec), spec, path)
    assert agreement is not None
    assert agreement.equal == agreement.images
    assert agreement.difference < difference


def test_the_file_is_standard_and_holds_signs(tmp_path: Path) -> None:
    """Only operators of ONNX itself; the binary convolutions' weights are -1 and +1; any batch; the spec is in it."""
    import onnx

    network = trained_like(TINY)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    path = tmp_path / "tiny.onnx"
    assert write_onnx(network, TINY, path) is not None
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert {entry.domain for entry in model.opset_import} == {""}
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    weights = [constants[node.input[1]] for node in model.graph.node if node.op_type == "Conv"]
    binary = [weight for weight in weights if set(np.unique(weight)) == {-1.0, 1.0}]
    assert len(binary) == 4
    assert {entry.key: entry.value for entry in model.metadata_props}["archid"] == TINY.archid


def test_signs_stay_signs_in_front_of_a_batch_norm(tmp_path: Path) -> None:
    """The exporter's optimiser multiplied batch norm into them, which broke exact ties: 1 of 16 answers were torch's."""
    import onnx

    spec = at_size("binaryalexnet", 32, "hidden=64", "channels=[16, 16, 16, 16, 16]")
    scaled = at_size("birealnet18", 32, "num_blocks=[1]", "channels=[64]")
    for one, binary in ((spec, 8), (scaled, 1)):
        torch.manual_seed(0)
        agreement = write_onnx(build(one).eval(), one, tmp_path / "net.onnx")
        assert agreement is not None
        assert agreement.equal == agreement.images > 0
        graph = onnx.load(tmp_path / "net.onnx").graph
        constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
        weights = [constants[node.input[1]] for node in graph.node if node.op_type == "Conv"]
        assert sum(set(np.unique(weight)) == {-1.0, 1.0} for weight in weights) == binary


@pytest.mark.slow
def test_nothing_compared_is_no_agreement(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """ "onnxruntime gives torch's top-1 on 0 of 0 images" was exit 0."""
    from meliuscli.export import onnx as exporter

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(exporter, "compare_with_torch", lambda *_: exporter.Agreement(0, 0, 0, 0.0))
    with pytest.raises(FailedError, match="not compared"):
        run_here("export", "meliusnet22", "--input", "32", "--set", "stem=thumbnail")


def test_onnxruntime_gives_the_same_answers(tmp_path: Path) -> None:
    check(TINY, tmp_path / "tiny.onnx", 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *("binarydensenet28", "resnete18", "xnornet-resnet18", "dorefanet-alexnet", "real2binary"),
        *("reactnet-a", "quicknet", "bnext-t", "pokebnn-1.0", "mobilenet-v2", "abcnet18"),
    ],
)
def test_every_family(name: str, tmp_path: Path) -> None:
    """A last digit of a float layer flips a sign here and there, which the layers behind it spread."""
    check(load_name(name), tmp_path / "network.onnx", 0.1)


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingError, match="onnxscript") as raised:
        write_onnx(build(TINY), TINY, tmp_path / "tiny.onnx")
    assert "meliuscli[onnx]" in (raised.value.hint or "")
    assert not list(tmp_path.iterdir())


def recorded(tmp_path: Path, top1: dict[int, float]) -> Run:
    """A run whose seeds have weights that differ."""
    fields = {
        "trained_as": TINY.model_dump(mode="json"),
        "runs": [{"seed": seed, "validation_top1": value} for seed, value in top1.items()],
    }
    for seed in top1:
        torch.manual_seed(seed)
        save_weights(build(TINY), TINY, tmp_path / f"run-1234-seed{seed}.safetensors")
    return Run(tmp_path / "run-1234.json", {**fields, "id": "1234"})


def test_the_seed_best_on_validation_is_taken(tmp_path: Path) -> None:
    run = recorded(tmp_path, {0: 0.5, 1: 0.7, 2: 0.6})
    best = load_trained(run)
    assert best.path.name == "run-1234-seed1.safetensors"
    assert best.spec == spec_from_fields(TINY.model_dump(mode="json"))
    assert load_trained(run, 2).path.name == "run-1234-seed2.safetensors"
    with pytest.raises(BadInputError, match="no seed 5"):
        load_trained(run, 5)


def test_weights_that_were_not_kept(tmp_path: Path) -> None:
    run = recorded(tmp_path, {0: 0.5})
    (tmp_path / "run-1234-seed0.safetensors").unlink()
    with pytest.raises(MissingError, match="no such file"):
        load_trained(run)


# Packed weights

ODD = TINY.replace(growth_rate=(20, 20), stem_channels=44, groups=1)
"""Channels that fill no whole words."""


def test_packed_weights_predict_to_the_last_bit(tmp_path: Path) -> None:
    path = tmp_path / "odd.safetensors"
    network = trained_like(ODD)
    assert write_packed(network, ODD, path)
    images = torch.randn(5, *ODD.input_shape)
    assert torch.equal(load_packed(path)(images), pack(network, ODD)(images))


NARROW = ["growth_rate=16", "stem_channels=16", "transition_channels=[40,56,64]", "groups=4"]


@pytest.mark.parametrize(("name", "changes"), [("meliusnet22", []), ("meliusnet22", NARROW), ("binarydensenet28", [])])
def test_the_file_is_as_large_as_counted(name: str, changes: list[str], tmp_path: Path) -> None:
    spec = load_arch(name, [*changes, "input_size=64"]).spec
    path = tmp_path / "network.safetensors"
    assert write_packed(build(spec).eval(), spec, path)
    assert path.stat().st_size == pytest.approx(count_spec(spec).total.size_bytes, rel=0.02)


def test_a_file_of_a_wrong_layer_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(network: torch.nn.Module, spec: ArchSpec) -> PackedNetwork:
        runner = pack(network, spec)
        assert isinstance(runner, PackedDense)
        runner.tensors["stage2.block1.dense.conv.words"][3, 1, 1, 0] ^= 1
        return runner

    monkeypatch.setattr(packed, "pack", broken)
    with pytest.raises(FailedError, match=r"self-test failed: stage2\.block1\.dense"):
        write_packed(trained_like(TINY), TINY, tmp_path / "network.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_file_for_images_of_another_size(cli: Cli, tmp_path: Path) -> None:
    arch = ("--arch", "meliusnet22", "--set", "stem=thumbnail", "--set", "num_classes=10")
    done = cli("export", *arch, "--to", "packed", "--input", "3x32x32", "--output", "small.safetensors")
    assert done.returncode == 0, done.stderr
    assert "at 3x32x32" in done.stdout
    assert load_packed(tmp_path / "small.safetensors")(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    for bad in ("3x32x64", "3xx"):
        assert cli("export", *arch, "--to", "packed", "--input", bad).returncode == 2
    save_weights(build(TINY), TINY, tmp_path / "weights.safetensors")
    done = cli("export", "--weights", "weights.safetensors", "--input", "7x32x32")
    assert done.returncode == 2
    assert "do not fit" in done.stderr


def test_a_network_without_binary_layers_is_not_packed(tmp_path: Path) -> None:
    spec = load_name("resnet18").replace(input_size=32)
    with pytest.raises(BadInputError, match="resnet"):
        write_packed(build(spec).eval(), spec, tmp_path / "network.safetensors")


def test_a_packed_file_has_a_bit_a_binary_weight_in_every_family(tmp_path: Path) -> None:
    """Besides, all that is float: of a batch norm four values a channel, where counting takes two."""
    spec = load_arch("birealnet18", ["input_size=32"]).spec
    path = tmp_path / "network.safetensors"
    assert write_packed(trained_like(spec), spec, path)
    total = count_spec(spec).total
    norms = sum(layer.out_channels for layer in spec.layers() if layer.kind == "batch_norm")
    floats = total.params - total.binary_params
    assert path.stat().st_size == pytest.approx(total.binary_params / 8 + 4 * (floats + 2 * norms), rel=0.02)


@pytest.fixture(scope="module")
def packed_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("packed") / "odd.safetensors"
    assert write_packed(trained_like(ODD), ODD, path)
    return path


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        *(("truncated", ""), ("empty", ""), ("bit", "checksum"), ("swapped", "checksum"), ("archid", "checksum")),
        *(
            ("shape", "its weights are"),
            ("type", "its weights are"),
            ("missing", ""),
            ("spec", ""),
            ("format", "packed-2"),
        ),
    ],
)
def test_damaged_files_are_refused(damage: str, says: str, packed_file: Path, tmp_path: Path) -> None:
    """A tensor of the wrong shape would make a kernel read beyond it."""
    path = tmp_path / "bad.safetensors"
    if damage in ("truncated", "empty"):
        path.write_bytes(packed_file.read_bytes()[:-100] if damage == "truncated" else b"")
    else:
        with safe_open(packed_file, framework="numpy") as file:
            about, weights = dict(file.metadata()), file.get_tensor("weights")
        if damage == "bit":
            weights[1000] ^= 1
        elif damage == "swapped":
            weights = weights[::-1].copy()
        elif damage == "archid":
            about["archid"] = "0" * 12
        elif damage == "spec":
            about["spec"] = about["spec"].replace('"groups":1', '"groups":7')
        elif damage == "format":
            about["format"] = "another"
        elif damage in ("shape", "type", "huge", "nested", "other archid"):
            if damage == "huge":  # would be 150 GB
                about["spec"] = load_arch("meliusnet22", ["growth_rate=65536"]).spec.model_dump_json()
            elif damage == "nested":
                about["spec"] = "[" * 100_000
            elif damage == "other archid":
                about["archid"] = "0" * 12
            else:
                weights = weights[:-1] if damage == "shape" else weights.astype(np.int16)
            # With the right checksum, as someone who means harm would write it.
            del about["sha256"]
            about["sha256"] = packed._digest(weights, about)
        path.write_bytes(save({"other" if damage == "missing" else "weights": weights}, about))
    with pytest.raises(BadInputError, match=rf"bad\.safetensors.*{says}"):
        load_packed(path)


@pytest.mark.parametrize(
    "command",
    [
        ["export", "--arch", "meliusnet22", "--to", "packed"],
        ["search", "--objectives", "accuracy,latency", "--budget", "8ms"],
        ["bench", "--arch", "meliusnet22"],
    ],
)
def test_without_llvmlite_the_extra_is_named(command: list[str], cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['llvmlite'] = None\n")
    done = cli(*command, PYTHONPATH=str(tmp_path))
    assert done.returncode == 3
    assert "meliuscli[packed]" in done.stderr
