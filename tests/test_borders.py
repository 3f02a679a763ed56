"""Padding is part of a network: a border of -1, 0 or +1, on both sides or as TensorFlow's "same", in every family that has the
fields, through building, counting, training, packing and exports."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from meliuscli.arch.adapt import at_input
from meliuscli.arch.spec import ArchSpec
from meliuscli.arch.zoo import load_arch
from meliuscli.cli.device_files import network_for_c, runner_for_qonnx
from meliuscli.counting.analytic import count_spec
from meliuscli.counting.memory import memory_of
from meliuscli.counting.traced import differences, trace_module
from meliuscli.errors import BadInputError, SpecError
from meliuscli.export.onnx import write_onnx
from meliuscli.export.packed import load_packed, write_packed
from meliuscli.export.qonnx import qonnx_model
from meliuscli.nn.build import build
from meliuscli.nn.quantizers import ApproxSign
from meliuscli.packed.bench import random_network
from meliuscli.packed.runner import pack
from meliuscli.packed.selftest import check, require_exact

SMALL = ["input_size=64", "num_classes=10"]
RESIDUAL = [*SMALL, "num_blocks=1,1", "channels=16,32", "stem_channels=16"]
DENSE = [*SMALL, "num_blocks=1,1", "growth_rate=16", "stem_channels=32", "transition_channels=[32]"]
BORDERS = {
    "meliusnet": ("meliusnet22", [*DENSE, "pad_value=0", "padding=same", "stem_pool=2"]),
    "meliusnet+1": ("meliusnet22", [*DENSE, "pad_value=1"]),
    "binarydensenet": ("binarydensenet28", [*DENSE, "pad_value=0", "padding=same", "dilation=1,2"]),
    "resnete": ("resnete18", [*RESIDUAL, "pad_value=0", "padding=same"]),
    "resnete-1": ("resnete18", [*RESIDUAL, "padding=same"]),
    "resnete+1": ("resnete18", [*RESIDUAL, "pad_value=1"]),
    "birealnet": ("birealnet18", [*RESIDUAL, "padding=same"]),
    "real2binary": ("real2binary", [*RESIDUAL, "padding=same"]),
    "quicknet": ("quicknet", [*RESIDUAL[:4], "padding=same"]),
    "dorefa-alexnet": (
        "dorefanet-alexnet",
        [*SMALL[1:], "channels=8,8,8,8,8", "hidden=16", "padding=same", "input_size=96"],
    ),
}

IN_C = ("resnete", "birealnet")
"""Families whose other borders C and QONNX have too."""


@pytest.fixture(params=BORDERS)
def spec(request: pytest.FixtureRequest) -> ArchSpec:
    name, changes = BORDERS[request.param]
    return load_arch(name, changes).spec


def test_a_border_is_part_of_the_archid_and_changes_no_macs(spec: ArchSpec) -> None:
    usual = spec.replace(**{key: type(spec).model_fields[key].default for key in spec.later})
    assert usual.archid != spec.archid
    first, second = count_spec(usual).total, count_spec(spec).total
    assert (first.macs, first.weights, first.size_bytes) == (second.macs, second.weights, second.size_bytes)
    assert memory_of(spec).is_c == (spec.family in IN_C)


@pytest.mark.parametrize(
    ("name", "archid"),
    [
        ("meliusnet22", "397250e88b64"),
        ("binarydensenet28", "b7a901a27b24"),
        ("dorefanet-alexnet", "34d8cee10501"),
        ("birealnet18", "0a96d4ffd6d5"),
        ("resnete18", "c4af43c6af94"),
        ("real2binary", "77330408e3ad"),
        ("quicknet", "ec8954bb212d"),
    ],
)
def test_networks_named_before_there_were_borders_keep_their_archid(name: str, archid: str) -> None:
    assert load_arch(name).spec.archid == archid


def test_both_roads_count_it_alike(spec: ArchSpec) -> None:
    assert differences(count_spec(spec), trace_module(build(spec), spec.input_shape)) == []


def test_it_trains(spec: ArchSpec) -> None:
    torch.manual_seed(0)
    network, images, labels = build(spec), torch.randn(8, *spec.input_shape), torch.arange(8)
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=0.003)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = F.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[2:]) < losses[0]
    weights = [m.weight for m in network.modules() if getattr(m, "weight_bits", 32) == 1 and isinstance(m, nn.Module)]
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in weights)


def test_the_gradient_of_the_recipe_is_that_of_every_border() -> None:
    network = build(load_arch(*BORDERS["resnete"]).spec, sign_gradient="approx")
    assert sum(isinstance(module, ApproxSign) for module in network.modules()) == 2


def test_what_is_packed_answers_alike_and_a_packed_file_is_read_again(spec: ArchSpec, tmp_path: Path) -> None:
    pytest.importorskip("llvmlite")
    network, images = random_network(spec, 2, 0)[0], torch.randn(2, *spec.input_shape)
    if spec.family == "dorefa-alexnet":
        with pytest.raises(BadInputError, match="more than one bit"):
            pack(network, spec)
        return
    runner = pack(network, spec)
    require_exact(check(runner, network, images))
    assert runner.left == ()
    for image in images:
        assert torch.equal(runner(image[None])[0].argmax(), network(image[None])[0].argmax())
    path = tmp_path / "net.packed.safetensors"
    assert write_packed(network, spec, path)
    assert torch.equal(load_packed(path)(images), runner(images))
    # A bit a binary weight: beside what is counted a batch norm's mean and deviation, its header, and whole bytes.
    norms = sum(2 * m.num_features for m in network.modules() if isinstance(m, nn.BatchNorm2d))
    counted = count_spec(spec).total.size_bytes
    assert counted <= path.stat().st_size < 1.02 * (counted + 4 * norms) + 1500


@pytest.mark.parametrize("key", ["binarydensenet", "dorefa-alexnet"])
def test_onnx_answers_alike(key: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    spec = load_arch(*BORDERS[key]).spec
    agreement = write_onnx(random_network(spec, 2, 0)[0], spec, tmp_path / "net.onnx")
    assert agreement is None or agreement.equal == agreement.images


def test_what_knows_one_border_alone_refuses_the_others(spec: ArchSpec) -> None:
    pytest.importorskip("llvmlite")
    network = random_network(spec, 2, 0)[0]
    if spec.family in IN_C:
        assert network_for_c(network, spec).spec == spec
        assert runner_for_qonnx(network, spec).spec == spec
        return
    with pytest.raises(BadInputError, match="--to c: for"):
        network_for_c(network, spec)
    if spec.family in ("meliusnet", "binarydensenet"):
        with pytest.raises(BadInputError, match="--to qonnx: not for"):
            runner_for_qonnx(network, spec)
        with pytest.raises(BadInputError, match="--to qonnx: not for"):  # of a packed file, say
            qonnx_model(pack(network, spec))


@pytest.mark.parametrize("name", ["resnete18", "birealnet18", "birealnet50"])
def test_same_is_for_basic_blocks_and_not_for_the_grouped_stem(name: str) -> None:
    with pytest.raises(SpecError, match="padding: same is for basic blocks"):
        load_arch(name, ["padding=same", *(["stem=grouped"] if name.endswith("18") else [])])


@pytest.mark.parametrize("pad_value", [0, 1])
def test_the_value_of_a_border_is_what_the_convolution_sees(pad_value: int) -> None:
    network = build(load_arch("meliusnet22", [*DENSE, f"pad_value={pad_value}"]).spec)
    conv = network.get_submodule("stage1.block1.dense.conv")
    x = torch.randn(1, 32, 5, 5)
    signs, weights = (torch.where(value >= 0, 1.0, -1.0) for value in (x, conv.weight.detach()))  # type: ignore[operator]
    with torch.no_grad():
        assert torch.equal(conv(x), F.conv2d(F.pad(signs, (1, 1, 1, 1), value=pad_value), weights))


def test_a_stem_without_pooling_takes_no_kernel_of_it() -> None:
    with pytest.raises(BadInputError, match="stem_pool: the thumbnail stem has no pooling"):
        load_arch("meliusnet22", ["stem=thumbnail", "input_size=32", "stem_pool=2"])
    moved = at_input(load_arch("meliusnet22", ["stem_pool=2"]).spec, 10, 3, 32)
    assert moved == load_arch("meliusnet22", ["stem=thumbnail", "input_size=32", "num_classes=10"]).spec
