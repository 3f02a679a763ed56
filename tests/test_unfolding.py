"""Exported networks as modules again: what is made of a directory of C, a packed or an ONNX file folds to the same numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_borders import DENSE
from test_export_c import SMALL, library_of, packed, small
from test_export_c_chain import CHAINS, chain_library, images_of, network_of, spec_of
from test_export_c_int8 import int8_of, runner_of

from meliuscli.arch.zoo import load_arch
from meliuscli.errors import BadInputError
from meliuscli.exchange.again import network_again
from meliuscli.export.c.float_network import runner_for_c
from meliuscli.export.c.manifest import read_manifest
from meliuscli.export.c.unfolding import read_network
from meliuscli.export.c.vectors import noise
from meliuscli.export.c.writer import make_library, write_library
from meliuscli.export.onnx import write_onnx
from meliuscli.export.packed import load_packed, write_packed
from meliuscli.nn.quantized import QuantConv2d
from meliuscli.packed.bench import random_network
from meliuscli.packed.runner import pack
from meliuscli.packed.unfold import network_of_runner, put_quantized

pytest.importorskip("llvmlite")


@pytest.mark.parametrize("key", CHAINS)
def test_of_a_directory_of_c_the_same_library_is_made(key: str, tmp_path: Path) -> None:
    write_library(chain_library(key), tmp_path / "c")
    network, images = read_network(read_manifest(tmp_path / "c")), images_of(key, 4)
    again = make_library(runner_for_c(network, spec_of(key)), key, "net")
    assert again.files["weights.c"] == chain_library(key).files["weights.c"]
    with torch.inference_mode():
        assert (network(images).argmax(1) == network_of(key)(images).argmax(1)).all()


@pytest.mark.parametrize("key", SMALL)
def test_and_of_a_dense_one_the_same_answers_to_the_last_bit(key: str, tmp_path: Path) -> None:
    write_library(library_of(key), tmp_path / "c")
    network, spec = read_network(read_manifest(tmp_path / "c")), small(key)
    runner, images = pack(network, spec), torch.cat([noise(spec, seed) for seed in range(8)])
    assert torch.equal(runner(images), packed(spec)(images))
    assert make_library(runner, key, "net").files["weights.c"] == library_of(key).files["weights.c"]


def test_int8_says_what_is_lost(tmp_path: Path) -> None:
    int8 = int8_of("groups")
    write_library(make_library(runner_of("groups"), "groups", "net", None, int8, {"int8_top1": 0.5}), tmp_path / "c")
    with pytest.raises(BadInputError, match="of their float32 weights 8 bits a weight are left") as caught:
        read_network(read_manifest(tmp_path / "c"))
    assert "the packed file" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("quicknet", ["num_blocks=1,1", "channels=16,32", "padding=same"]),
        ("meliusnet22", [*DENSE[2:], "pad_value=0", "stem_pool=2"]),
    ],
)
def test_networks_that_run_packed_in_part_are_packed_of_their_onnx_files(
    name: str, changes: list[str], tmp_path: Path
) -> None:
    """And of a packed file an ONNX file is made that is the network's."""
    pytest.importorskip("onnxscript")
    spec = load_arch(name, ["input_size=32", "num_classes=10", *changes]).spec
    network, images = random_network(spec, 1, 0)[0], torch.randn(4, *spec.input_shape)
    write_onnx(network, spec, tmp_path / "net.onnx")
    assert write_packed(network_again(tmp_path / "net.onnx", "onnx", spec), spec, tmp_path / "net.packed.safetensors")
    again = load_packed(tmp_path / "net.packed.safetensors")
    assert torch.equal(again(images), pack(network, spec)(images))
    with torch.inference_mode():
        assert torch.equal(network_of_runner(again)(images), network(images))


@pytest.mark.parametrize("change", ["rename", "reshape", "turn"])
def test_an_onnx_file_that_is_not_the_networks_is_refused(change: str, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    spec, path = spec_of("resnete-same"), tmp_path / "net.onnx"
    write_onnx(network_of("resnete-same"), spec, path)
    model = onnx.load(path)
    (weight,) = (one for one in model.graph.initializer if one.name == "head.fc.weight")
    values = onnx.numpy_helper.to_array(weight)
    if change == "rename":
        weight.name = "other"
    elif change == "reshape":
        weight.CopyFrom(onnx.numpy_helper.from_array(values[:, 1:].copy(), weight.name))
    else:
        for node in model.graph.node:
            if node.op_type == "Relu":
                node.op_type = "Neg"
    onnx.save(model, path)
    says = {"rename": "no constant 'head.fc.weight'", "reshape": "shape", "turn": "answers otherwise"}[change]
    with pytest.raises(BadInputError, match=says) as caught:
        network_again(path, "onnx", spec)
    assert "export the run" in str(caught.value.hint)


@torch.no_grad()
@pytest.mark.parametrize("taps", [144, 27, 180, 61])
def test_magnitudes_are_found_whatever_their_mean_rounds_to(taps: int) -> None:
    conv = QuantConv2d(taps, 40, 1)
    wanted = conv.quantizer(torch.randn(conv.weight.shape, generator=torch.Generator().manual_seed(taps)) * 0.1)
    put_quantized("conv", conv, torch.where(wanted > 0, 1.0, -1.0), wanted.abs().amax((1, 2, 3)))
    assert torch.equal(conv.quantizer(conv.weight), wanted)
