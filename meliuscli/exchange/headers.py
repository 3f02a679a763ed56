"""Which network a file of ours holds, from its header alone: no torch, and no tensor is read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from meliuscli.arch.spec import parse_toml
from meliuscli.arch.zoo import NamedArch, arch_names, arch_of, spec_from_fields
from meliuscli.data.preprocessing import KEY, Preprocessing
from meliuscli.errors import BadInputError, no_file, why_unread
from meliuscli.export.c.manifest import c_directory, read_manifest
from meliuscli.export.onnx_header import onnx_metadata
from meliuscli.runs import PACKED_FORMAT, safetensors_header

FileKind = Literal["weights", "packed", "onnx", "c"]
"""Weights of the torch module, bits and thresholds for our runner, a graph, a directory of C."""


@dataclass(frozen=True, slots=True)
class FileHeader:
    """``preprocessing``: what images go through, where the file says it; ``is_int8``: stem and head of C are in 8 bits."""

    named: NamedArch
    kind: FileKind
    preprocessing: Preprocessing | None
    is_int8: bool = False


def names_file(text: str) -> bool:
    """Is this the name of a file of weights, packed or not, of an ONNX file, or of a directory of C? The name of a known network
    is not: ``./NAME`` is a directory that is called so."""
    if text.lower().endswith((".safetensors", ".onnx")):
        return True
    return text not in arch_names() and c_directory(Path(text)) is not None


def file_kind(text: str) -> FileKind | None:
    """Of a file or directory; None for what names none. Raises as ``read_header``."""
    return read_header(Path(text)).kind if names_file(text) else None


def read_header(path: Path) -> FileHeader:
    """Raises ``BadInputError`` where the file is not there or none of ours."""
    if (directory := c_directory(path)) is not None:
        manifest = read_manifest(directory)
        named = NamedArch(directory.name or str(directory), manifest.spec)
        return FileHeader(named, "c", manifest.preprocessing, manifest.is_int8)
    if not path.is_file():
        raise no_file(path)
    is_onnx = path.suffix.lower() == ".onnx"
    try:
        about = onnx_metadata(path) if is_onnx else dict(safetensors_header(path).get("__metadata__", {}))
        text = str(about["spec"])
        is_packed = str(about.get("format", "")).startswith(PACKED_FORMAT)
        fields = json.loads(text) if is_packed else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        hint = "name the network too" if isinstance(error, KeyError) and not is_onnx else None
        raise BadInputError(f"{path}: does not say which network it holds: {why_unread(error)}", hint) from None
    where = f"{path}: "
    named = (
        NamedArch(path.name, spec_from_fields(fields, where))
        if is_packed
        else NamedArch(path.name, arch_of(parse_toml(text.encode(), path), path.stem, (), where).spec)
    )
    kind: FileKind = "onnx" if is_onnx else "packed" if is_packed else "weights"
    return FileHeader(named, kind, Preprocessing.from_json(about.get(KEY), path))
