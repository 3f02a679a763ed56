"""QONNX files: bipolar where the network is, and of the same answers in qonnx's own executor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import run_here
from test_export_c import SMALL, packed, small
from test_export_c_chain import images_of, network_of, spec_of

from meliuscli.arch.zoo import load_name
from meliuscli.counting.analytic import count_spec
from meliuscli.counting.conventions import CONVENTIONS
from meliuscli.counting.counts import Op, add
from meliuscli.errors import BadInputError
from meliuscli.exchange.qonnx import read_qonnx
from meliuscli.export.c.vectors import noise
from meliuscli.export.qonnx import qonnx_model, run_qonnx
from meliuscli.export.qonnx_nodes import DOMAIN
from meliuscli.nn.build import build
from meliuscli.packed.runner import pack
from meliuscli.packed.unfold import before_sign
from meliuscli.packed.words import pack_bits

onnx = pytest.importorskip("onnx")


def model_of(key: str) -> Any:
    runner = packed(small(key))
    return qonnx_model(runner)


@pytest.mark.parametrize("key", SMALL)
def test_binary_layers_are_bipolar_to_their_edges(key: str) -> None:
    """Every binary convolution reads a quantizer of a padded map and a quantizer of weights, and pads nothing itself."""
    graph, spec = model_of(key).graph, small(key)
    made = {output: node for node in graph.node for output in node.output}
    units = [unit for stage in spec.stages() for unit in stage.units]
    binary = [node for node in graph.node if node.op_type == "Conv" and made.get(node.input[1]) is not None]
    assert len(binary) == len(units)
    for node, unit in zip(binary, units, strict=True):
        signs, weights = made[node.input[0]], made[node.input[1]]
        assert {signs.op_type, weights.op_type} == {"BipolarQuant"}
        assert {signs.domain, weights.domain} == {DOMAIN}
        assert made[signs.input[0]].op_type == "Pad"
        attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
        assert (attributes["pads"], attributes["dilations"]) == ([0] * 4, [unit.dilation] * 2)
    shapes = {value.name: value.type.tensor_type.shape.dim for value in (*graph.value_info, *graph.output)}
    assert set(made) <= set(shapes)
    assert all(dim.dim_value > 0 for dims in shapes.values() for dim in dims)
    assert {entry.domain: entry.version for entry in model_of(key).opset_import}[DOMAIN] == 1


def test_signs_are_the_packed_runners_for_every_float() -> None:
    values = np.array([0.0, 1.5, -1e-40, 3e38, -3.4028235e38, np.nan, np.nan, 0.1], np.float32)
    flips = np.array([0, 1, 0, 1, 0, 0, 1, 1], bool)
    scale, shift = before_sign(values, pack_bits(flips))
    with np.errstate(over="ignore"):  # nothing is below the lowest float
        near = [values, np.nextafter(values, np.float32(np.inf)), np.nextafter(values, np.float32(-np.inf))]
    for x in (*near, np.float32([0.0] * 8), np.float32([-3e38] * 8), np.float32([3e38] * 8)):
        x = np.where(np.isfinite(x), x, np.float32(0))
        with np.errstate(over="ignore"):
            assert ((scale * x + shift >= 0) == ((x >= values) != flips)).all()


@pytest.mark.parametrize("key", ["tfc", "cnv"])
def test_networks_of_finns_are_read_back_as_they_were(key: str, tmp_path: Path) -> None:
    """By the importer of such files, which knows nothing of how we write them."""
    runner = pack(network_of(key), spec_of(key))
    onnx.save(qonnx_model(runner), tmp_path / "net.onnx")
    read = read_qonnx(tmp_path / "net.onnx", None)
    network = build(read.spec)
    network.load_state_dict(read.tensors)
    images = images_of(key, 16)
    with torch.inference_mode():
        logits = network.eval()(images)
    assert torch.allclose(logits, runner(images), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("key", ["tfc", "cnv"])
def test_qonnx_answers_as_networks_of_finns(key: str) -> None:
    pytest.importorskip("qonnx", reason="qonnx is not installed")
    runner, images = pack(network_of(key), spec_of(key)), images_of(key, 64)
    theirs = run_qonnx(qonnx_model(runner), images)
    assert theirs is not None
    ours = runner(images).numpy()
    assert (ours.argmax(1) == theirs.argmax(1)).all()
    assert np.abs(ours - theirs).max() < 1e-3 * ours.std()


@pytest.mark.slow
@pytest.mark.parametrize("key", SMALL)
def test_qonnx_answers_as_the_packed_runner(key: str) -> None:
    """64 images: top-1 equal on all; logits within rounding but where the rounding of a float layer turns a sign, which depends
    on the machine and happens on one of the images at most."""
    pytest.importorskip("qonnx", reason="qonnx is not installed")
    runner = packed(small(key))
    images = torch.cat([noise(runner.spec, seed) for seed in range(64)])
    theirs = run_qonnx(qonnx_model(runner), images)
    assert theirs is not None
    ours = runner(images).numpy()
    assert (ours.argmax(1) == theirs.argmax(1)).all()
    far = np.abs(ours - theirs).max(1) > 1e-4 * ours.std()
    assert far.sum() <= 1


@pytest.mark.parametrize("key", SMALL)
def test_the_convention_is_qonnx_inference_cost(key: str, tmp_path: Path) -> None:
    cost = pytest.importorskip("qonnx.util.inference_cost", reason="qonnx is not installed")
    onnx.save(model_of(key), tmp_path / "net.onnx")
    theirs = cost.inference_cost(str(tmp_path / "net.onnx"), discount_sparsity=False)["total_cost"]
    total = count_spec(small(key)).total
    assert theirs["total_bops"] == CONVENTIONS["qonnx"].derive(total).ops
    assert theirs["total_macs"] == sum(n for _, n in total.macs)


def test_the_convention_prices_operands_at_their_bits() -> None:
    rule, total = CONVENTIONS["qonnx"], count_spec(load_name("meliusnet22")).total
    assert rule.derive(total).ops == total.binary_macs + 1024 * total.float_macs
    mixed = add([], "x", "x")
    assert rule.derive(type(mixed)("x", "x", (), macs=((Op("conv", 1, 32), 10), (Op("conv", 4, 8), 1)))).ops == 352


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    narrow = [f"--set={change}" for change in ("stem=thumbnail", "num_blocks=[1]", "transition_channels=[]")]
    run_here("export", "meliusnet22", "--input", "3x8x8", "--to", "qonnx", *narrow, "-o", "net.onnx")
    assert "has no hardware layer for its Pad" in capsys.readouterr().out
    assert (tmp_path / "net.onnx").is_file()
    run_here("export", "tfc", "--input", "1x6x6", "--to", "qonnx", "-o", "tfc.onnx")
    assert "hls4ml 1.3: compiles it" in capsys.readouterr().out
    with pytest.raises(BadInputError, match="real2binary"):
        run_here("export", "real2binary", "--input", "32", "--to", "qonnx", "-o", "other.onnx")


@pytest.mark.parametrize("words", [["evaluate", "FILE"], ["predict", "FILE", "image.png"], ["bench", "FILE"]])
def test_what_runs_in_onnxruntime_says_what_becomes_of_a_qonnx_file(words: list[str], tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    file = tmp_path / "net.qonnx.onnx"
    onnx.save(model_of("one-stage"), str(file))
    with pytest.raises(BadInputError, match="a QONNX file") as caught:
        run_here(*(word.replace("FILE", str(file)) for word in words))
    assert "counted, shown and imported" in str(caught.value.hint)
