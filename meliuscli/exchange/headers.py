"""Which network a safetensors file of ours holds, from its header alone: no torch, and no tensor is read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from meliuscli.arch.spec import parse_toml
from meliuscli.arch.zoo import NamedArch, arch_of, spec_from_fields
from meliuscli.data.preprocessing import KEY, Preprocessing
from meliuscli.errors import BadInputError, MissingError
from meliuscli.runs import PACKED_FORMAT, safetensors_header


@dataclass(frozen=True, slots=True)
class FileHeader:
    """``is_packed``: bits and thresholds for our runner, else weights of the torch module."""

    named: NamedArch
    is_packed: bool
    preprocessing: Preprocessing | None


def names_file(text: str) -> bool:
    """Is this the name of a safetensors file?"""
    return text.lower().endswith(".safetensors")


def names_packed(text: str) -> bool:
    """Is this the name of a packed network's file? Raises as ``read_header``."""
    return names_file(text) and read_header(Path(text)).is_packed


def read_header(path: Path) -> FileHeader:
    """Raises ``MissingError`` where the file is not there, ``BadInputError`` where it is none of ours."""
    if not path.is_file():
        raise MissingError(f"{path}: no such file")
    try:
        about = dict(safetensors_header(path).get("__metadata__", {}))
        text = str(about["spec"])
        is_packed = str(about.get("format", "")).startswith(PACKED_FORMAT)
        fields = json.loads(text) if is_packed else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        hint = "name the network too" if isinstance(error, KeyError) else None
        raise BadInputError(f"{path}: does not say which network it holds: {error}", hint) from None
    where = f"{path}: "
    named = (
        NamedArch(path.name, spec_from_fields(fields, where))
        if is_packed
        else NamedArch(path.name, arch_of(parse_toml(text.encode(), path), path.stem, (), where).spec)
    )
    return FileHeader(named, is_packed, Preprocessing.from_json(about.get(KEY), path))
