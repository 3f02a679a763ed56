"""What an ONNX file says of itself, and its constants: no torch, and nothing is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from meliuscli.errors import BadInputError, MissingError


def onnx_metadata(path: Path) -> dict[str, str]:
    """Its properties by name. Raises ``ValueError`` for no ONNX file, ``MissingError`` without onnx."""
    try:
        import onnx
    except ImportError:
        raise MissingError("an ONNX file needs the package onnx", 'pip install "meliuscli[onnx]"') from None
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's errors have no common class
        raise ValueError(str(error)[:100]) from None
    return {one.key: one.value for one in model.metadata_props}


def read_constants(path: Path) -> tuple[dict[str, Any], list[Any]]:
    """Arrays by name, and slopes of PReLU in the order of their nodes. Raises ``BadInputError`` for no ONNX file, ``MissingError``
    without onnx."""
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError:
        raise MissingError("an ONNX file needs the package onnx", 'pip install "meliuscli[onnx]"') from None
    try:
        graph = onnx.load(str(path), load_external_data=False).graph
        constants = {one.name: numpy_helper.to_array(one).copy() for one in graph.initializer}
    except Exception as error:  # protobuf's errors have no common class
        raise BadInputError(f"{path}: no ONNX file: {str(error)[:100]}") from None
    slopes = [constants[node.input[1]] for node in graph.node if node.op_type == "PRelu" and node.input[1] in constants]
    return constants, slopes
