"""What an ONNX file says of itself: no torch, and nothing is run."""

from __future__ import annotations

from pathlib import Path

from meliuscli.errors import MissingError


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
