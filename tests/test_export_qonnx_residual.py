"""QONNX files of ResNetE and Bi-Real Net: bipolar where the network is, with borders on one side or both, and of the same answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_export_c_chain import chain_of, images_of, network_of, spec_of

from meliuscli.export.c.exact import run_chain
from meliuscli.export.c.tables import plain
from meliuscli.export.qonnx import qonnx_model, run_qonnx
from meliuscli.export.qonnx_nodes import DOMAIN
from meliuscli.packed.runner import pack

onnx = pytest.importorskip("onnx")

KEYS = (
    "birealnet-same",
    "reactivated-same",
    "resnete-same",
    "resnete-same+0",
    "resnete-same+1",
    "resnete-grouped",
    "bottleneck",
)


def model_of(key: str) -> Any:
    pytest.importorskip("llvmlite")
    return qonnx_model(pack(network_of(key), spec_of(key)))


def executed(model: Any, images: np.ndarray, names: list[str]) -> list[np.ndarray]:
    """Those tensors, image by image, by onnx's own reference of its operators and the definition of ``BipolarQuant``."""
    reference = pytest.importorskip("onnx.reference")

    class BipolarQuant(reference.op_run.OpRun):  # type: ignore[misc, name-defined]
        op_domain = DOMAIN

        def _run(self, x: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray]:
            return (np.where(x >= 0, scale, -scale).astype(np.float32),)

    model = onnx.ModelProto.FromString(model.SerializeToString())
    model.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names[1:]
    )
    session = reference.ReferenceEvaluator(model, new_ops=[BipolarQuant])
    ran = [session.run(names, {"images": image[None]}) for image in images]
    return [np.concatenate(one) for one in zip(*ran, strict=True)]


@pytest.mark.parametrize("key", KEYS)
def test_every_whole_number_is_the_chains(key: str) -> None:
    """Dot products of signs, layer by layer, and logits within rounding. Of a layer a thousandth may differ, where the two roundings
    of a multiplication and an addition have turned a sign before it."""
    chain, images = chain_of(key), images_of(key, 4).numpy()
    names = [f"{plain(step.name)}_dots" for step in chain.binary]
    logits, *dots = executed(model_of(key), images, ["logits", *names])
    ran = run_chain(chain, images)
    for step, ours in zip(chain.binary, dots, strict=True):
        numbers = ran.counts[step.name].transpose(0, 3, 1, 2)
        wrong = ours != (2 * numbers - step.most if step.weights.xnor else numbers)
        assert wrong.mean() <= 1e-3, step.name
        assert step is not chain.binary[0] or not wrong.any()
    assert (logits.argmax(1) == ran.logits.argmax(1)).all()
    assert np.abs(logits - ran.logits).max() < 1e-2 * ran.logits.std()


@pytest.mark.parametrize("key", KEYS)
def test_begins_and_ends_are_said_one_by_one(key: str) -> None:
    """In front of the quantizer where the border is a sign, behind it where it is 0; the convolution itself pads nothing."""
    graph = model_of(key).graph
    made = {output: node for node in graph.node for output in node.output}
    constants = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    for step in chain_of(key).binary:
        name, own = plain(step.name), step.weights
        conv, border = made[f"{name}_dots"], own.window.border(step.size)
        assert list(next(one.ints for one in conv.attribute if one.name == "pads")) == [0] * 4
        assert made[conv.input[1]].op_type == "BipolarQuant"
        nodes = [made[conv.input[0]], made[made[conv.input[0]].input[0]]]
        if border != (0, 0):
            (pad,) = (node for node in nodes if node.op_type == "Pad")
            assert (nodes[0] is pad) == (own.pad_value == 0)
            assert constants[pad.input[1]].tolist() == [0, 0, *[border[0]] * 2, 0, 0, *[border[1]] * 2]
            assert constants[pad.input[2]] == own.pad_value
    borders = {step.weights.window.border(step.size) for step in chain_of(key).binary if step.weights.window.stride > 1}
    assert ((0, 1) in borders) == ("same" in key)


@pytest.mark.slow
@pytest.mark.parametrize("key", KEYS)
def test_qonnx_answers_as_the_packed_runner(key: str) -> None:
    pytest.importorskip("qonnx", reason="qonnx is not installed")
    images = images_of(key, 64)
    theirs = run_qonnx(model_of(key), images)
    assert theirs is not None
    ours = pack(network_of(key), spec_of(key))(images).numpy()
    assert (ours.argmax(1) == theirs.argmax(1)).all()
    assert (np.abs(ours - theirs).max(1) > 1e-4 * ours.std()).sum() <= 1
