"""FINN's first steps, where they are installed (finn-plus 1.6.1, a fork of FINN whose wheel holds them): a QONNX file in FINN's dialect, and
streamlined, run by qonnx's executor. Hardware is not made."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from test_export_c import SMALL, packed, small
from test_export_c_chain import images_of, network_of, spec_of

from meliuscli.export.c.vectors import noise
from meliuscli.export.qonnx import qonnx_model, verdicts
from meliuscli.packed.runner import pack

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def streamlined(model: Any) -> Any:
    """As ``step_qonnx_to_finn``, ``step_tidy_up`` and ``step_streamline`` of its builder do."""
    pytest.importorskip("finn.transformation.streamline", reason="finn-plus is not installed")
    import finn.transformation.streamline.absorb as absorb
    from finn.transformation.qonnx.convert_qonnx_to_finn import ConvertQONNXtoFINN
    from finn.transformation.streamline import Streamline
    from finn.transformation.streamline.reorder import MakeMaxPoolNHWC
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.transformation.bipolar_to_xnor import ConvertBipolarMatMulToXnorPopcount
    from qonnx.transformation.infer_datatypes import InferDataTypes
    from qonnx.transformation.lower_convs_to_matmul import LowerConvsToMatMul
    from qonnx.util.cleanup import cleanup_model

    model = cleanup_model(ModelWrapper(model)).transform(ConvertQONNXtoFINN())
    assert not model.get_nodes_by_op_type("BipolarQuant")
    steps = [InferDataTypes(), absorb.AbsorbScalarBiasIntoMultiThreshold(), Streamline()]
    if model.get_nodes_by_op_type("Conv"):
        steps += [
            LowerConvsToMatMul(),
            MakeMaxPoolNHWC(),
            absorb.AbsorbTransposeIntoMultiThreshold(),
            MakeMaxPoolNHWC(),
        ]
        steps.append(absorb.AbsorbConsecutiveTransposes())
    for step in (*steps, ConvertBipolarMatMulToXnorPopcount(), Streamline()):
        model = model.transform(step)
    return model


@pytest.mark.parametrize("key", ["tfc", "cnv", "one-stage", "resnete-same", "birealnet-same"])
def test_it_takes_the_file_and_answers_the_same_where_we_say_so(key: str) -> None:
    if key in SMALL:
        runner = packed(small(key))
        images = torch.cat([noise(runner.spec, seed) for seed in range(8)])
    else:
        runner, images = pack(network_of(key), spec_of(key)), images_of(key, 8)
    model = streamlined(qonnx_model(runner))
    from qonnx.core.onnx_exec import execute_onnx

    entry, out = model.graph.input[0].name, model.graph.output[0].name
    theirs = np.concatenate([execute_onnx(model, {entry: image[None]})[out].reshape(1, -1) for image in images.numpy()])
    is_same = bool((theirs.argmax(1) == runner(images).numpy().argmax(1)).all())
    assert len(model.get_nodes_by_op_type("XnorPopcountMatMul")) >= 3
    assert is_same == ("other answers" not in verdicts(runner.spec))
