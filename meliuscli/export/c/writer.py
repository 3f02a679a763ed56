"""``write_c(network, spec, directory)``: a network as a directory of C, which is written whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from meliuscli.arch.families.dense import DenseFamilySpec
from meliuscli.arch.spec import ArchSpec
from meliuscli.counting.analytic import count_spec
from meliuscli.errors import BadInputError
from meliuscli.export.c.arena import Arena, plan_arena
from meliuscli.export.c.sources import header, network_source, template
from meliuscli.export.c.tables import Table, make_tables, weights_header, weights_source
from meliuscli.export.c.vectors import SEEDS, noise, packed_answer, vectors_header
from meliuscli.packed.program import Array
from meliuscli.packed.runner import PackedDense, pack
from meliuscli.results import cannot_write, json_text
from meliuscli.version import __version__


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What an image goes through before the network: bytes / 255, less the mean, by the deviation, a number a channel."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CLibrary:
    """Files by their names within the directory, and what they come to: bytes of constants and of the arena."""

    files: Mapping[str, bytes]
    flash_bytes: int
    arena: Arena


def make_library(network: nn.Module, spec: ArchSpec, prefix: str, title: str, given: Preprocessing | None) -> CLibrary:
    """The library of a network in eval mode: the same bytes every time.

    Raises ``BadInputError`` for a family that does not run packed from end to end, ``MissingError`` without llvmlite."""
    if not isinstance(spec, DenseFamilySpec):
        raise BadInputError(f"--to c: for MeliusNet and BinaryDenseNet, not for {spec.family}")
    runner = pack(network, spec)
    assert isinstance(runner, PackedDense)
    arena, tables = plan_arena(spec), make_tables(spec, runner.tensors)
    channels = spec.input_channels
    norm = ((0.0,) * channels, (1.0,) * channels) if given is None else (given.mean, given.deviation)
    names = given.classes if given is not None else tuple(f"class {number}" for number in range(spec.num_classes))
    answers = [(seed, packed_answer(runner, noise(spec, seed))) for seed in SEEDS]
    texts = {
        f"{prefix}.h": header(spec, title, prefix, arena),
        f"{prefix}.c": network_source(spec, prefix, arena, tables),
        "kernels.h": template("kernels.h", prefix),
        "kernels.c": template("kernels.c", prefix),
        "weights.h": weights_header(prefix, tables),
        "weights.c": weights_source(prefix, tables),
        "test/main.c": template("main.c", prefix),
        "test/vectors.h": vectors_header(prefix, answers, [np.array(one) for one in norm], names),
        "CMakeLists.txt": template("CMakeLists.txt", prefix),
        "zephyr/module.yml": template("module.yml", prefix),
        "zephyr/CMakeLists.txt": template("zephyr.cmake", prefix),
        "library.properties": template("library.properties", prefix).replace("@TITLE@", title).replace("@VERSION@", __version__),
    }
    flash = sum(table.values.nbytes for table in tables)
    texts["memory.json"] = json_text(_memory(arena, tables))
    texts["manifest.json"] = json_text(_manifest(spec, title, tables, given, texts))
    return CLibrary({name: text.encode() for name, text in sorted(texts.items())}, flash, arena)


def _memory(arena: Arena, tables: Sequence[Table]) -> dict[str, Any]:
    kinds = [
        {
            "part": moment.part,
            "bytes": moment.total,
            "float_bytes": moment.float_bytes,
            "count_bytes": moment.count_bytes,
            "sign_bytes": moment.sign_bytes,
        }
        for moment in arena.moments
    ]
    peak = max(arena.moments, key=lambda moment: moment.total)
    return {
        "arena_bytes": arena.size,
        "peak_part": peak.part,
        "parts": kinds,
        "constant_bytes": sum(table.values.nbytes for table in tables),
        "constants": {table.name: table.values.nbytes for table in tables},
        "not_counted": "the code of the library, its stack, and the caller's image and logits",
    }


def _manifest(
    spec: ArchSpec, title: str, tables: Sequence[Table], given: Preprocessing | None, texts: Mapping[str, str]
) -> dict[str, Any]:
    total = count_spec(spec).total
    sha = hashlib.sha256(b"".join(np.ascontiguousarray(table.values).tobytes() for table in tables))
    norm = None if given is None else {"scale": "bytes / 255", "mean": given.mean, "deviation": given.deviation}
    return {
        "format": "meliuscli-c-1",
        "meliuscli": __version__,
        "network": title,
        "archid": spec.archid,
        "spec": spec.model_dump(mode="json"),
        "counts": {"binary_macs": total.binary_macs, "float_macs": total.float_macs, "params": total.params},
        "float_parts": "float32: the stem, the transitions and the head; binary convolutions and their thresholds are in bits and whole numbers",
        "input": {"shape": spec.input_shape, "type": "float32", "order": "channels, rows, columns"},
        "preprocessing": norm,
        "classes": None if given is None else given.classes,
        "weights_sha256": sha.hexdigest(),
        "files_sha256": {name: hashlib.sha256(text.encode()).hexdigest() for name, text in sorted(texts.items())},
    }


def write_library(library: CLibrary, directory: Path, force: bool) -> None:
    """The files in a directory that is there from one moment to the next; with ``force`` in place of one that is there.

    Raises ``MissingError`` where it cannot be written."""
    made = directory.with_name(f".{directory.name}-{os.getpid()}")
    try:
        for name, content in library.files.items():
            path = made / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        if force and directory.exists():
            shutil.rmtree(directory)
        made.rename(directory)
    except OSError as error:
        shutil.rmtree(made, ignore_errors=True)
        raise cannot_write(directory, error) from None
