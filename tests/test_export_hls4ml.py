"""hls4ml, where it is installed, makes C++ of FINN's networks that predicts as the packed runner; what it refuses, we say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import at_size
from test_export_c import need, packed, small
from test_export_c_chain import images_of, network_of, spec_of

from meliuscli.arch.zoo import load_name
from meliuscli.export.qonnx import qonnx_model, verdicts
from meliuscli.packed.runner import pack

IMAGES = 64
PRECISION = "fixed<40,24>"


def in_channels_last(model: Any) -> Any:
    """As hls4ml wants it: cleaned, and the image with its channels last."""
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.transformation.channels_last import ConvertToChannelsLastAndClean
    from qonnx.util.cleanup import cleanup_model

    model = cleanup_model(ModelWrapper(model))
    if any(node.op_type == "Conv" for node in model.graph.node):
        model = cleanup_model(model.transform(ConvertToChannelsLastAndClean(make_input_channels_last=True)))
    return model


def converted(model: Any, place: Path, io_type: str) -> Any:
    hls4ml = pytest.importorskip("hls4ml", reason="hls4ml is not installed")
    config = hls4ml.utils.config.config_from_onnx_model(
        model, granularity="name", backend="Vitis", default_precision=PRECISION
    )
    how = {"backend": "Vitis", "io_type": io_type, "hls_config": config}
    return hls4ml.converters.convert_from_onnx_model(model, output_dir=str(place), **how)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("key", "io_type"), [("tfc", "io_parallel"), ("cnv", "io_stream")])
def test_it_compiles_and_predicts_the_same(key: str, io_type: str, tmp_path: Path) -> None:
    """On images that its fixed point holds exactly: others fall on the other side of where 8-bit pixels are rounded."""
    pytest.importorskip("hls4ml", reason="hls4ml is not installed")
    need("g++")
    spec, runner = spec_of(key), pack(network_of(key), spec_of(key))
    images = (images_of(key, IMAGES) * 1024).round() / 2048
    model = in_channels_last(qonnx_model(runner))
    made = converted(model, tmp_path / "hls", io_type)
    made.compile()
    given = images.permute(0, 2, 3, 1) if key == "cnv" else images
    theirs = made.predict(np.ascontiguousarray(given.numpy())).reshape(IMAGES, spec.num_classes)
    ours = runner(images).numpy()
    assert (theirs.argmax(1) == ours.argmax(1)).all()
    assert np.abs(theirs - ours).max() < 1e-3 * ours.std()
    assert "compiles" in verdicts(spec)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_padding_with_minus_one_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("hls4ml", reason="hls4ml is not installed")
    runner = packed(small("one-stage"))
    with pytest.raises(RuntimeError, match="Only constant value of 0 supported for Pad"):
        converted(in_channels_last(qonnx_model(runner)), tmp_path / "hls", "io_stream")
    assert "refuses" in verdicts(runner.spec)


def test_what_is_said_of_each_consumer() -> None:
    assert "passes over a graph of BipolarQuant alone" in verdicts(load_name("lfc"))
    assert "passes over" not in verdicts(load_name("cnv"))
    assert "fails at a grouped stem" in verdicts(at_size("meliusnet22", 32))
    assert "no hardware layer for its Pad" in verdicts(at_size("meliusnet22", 32, "stem=thumbnail"))
