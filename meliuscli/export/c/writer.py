"""A network as a directory of C, which is written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from meliuscli.arch.spec import ArchSpec
from meliuscli.data.preprocessing import Preprocessing
from meliuscli.errors import BadInputError
from meliuscli.export.c.arena import Arena
from meliuscli.export.c.chain_arena import ChainArena
from meliuscli.export.c.float_network import CNetwork
from meliuscli.export.c.int8_run import Int8Network
from meliuscli.export.c.manifest import MANIFEST, clean_title
from meliuscli.export.c.parts import CParts, parts_of
from meliuscli.export.c.sources import header, template
from meliuscli.export.c.stated import FORMAT, stated_of
from meliuscli.export.c.tables import ConstTable, weights_header, weights_source
from meliuscli.export.c.vectors import Expected, noise, vectors_header
from meliuscli.packed.runner import PackedDense
from meliuscli.results import cannot_write, json_text
from meliuscli.version import __version__


@dataclass(frozen=True, slots=True)
class CLibrary:
    """Files by their names within the directory, and what they come to: bytes of constants and of the arena. ``torch_top1``:
    on how many of how many test vectors torch gives the same class, where the vectors do not come from a packed runner."""

    files: Mapping[str, bytes]
    flash_bytes: int
    arena: Arena | ChainArena
    torch_top1: tuple[int, int] | None = None


def make_library(
    runner: CNetwork,
    name: str,
    prefix: str,
    how: Preprocessing | None = None,
    int8: Int8Network | None = None,
    measured: Mapping[str, Any] | None = None,
) -> CLibrary:
    """The library of a packed network: the same bytes every time. ``name`` is what to call the network, ``prefix`` begins
    all names in C, and ``how`` is what images go through. ``int8``: the network with stem and head in 8 bits, and ``measured``
    what that costs.

    Raises ``BadInputError`` for a family that has no library."""
    spec, title = runner.spec, clean_title(name)
    parts = parts_of(runner, prefix, int8)
    properties = template("library.properties", prefix)
    texts = {
        **library_texts(spec, title, prefix, parts, int8 is not None),
        "test/main.c": template("main.c", prefix),
        "test/vectors.h": vectors_header(prefix, parts.answers, how, spec.num_classes),
        "CMakeLists.txt": template("CMakeLists.txt", prefix),
        "zephyr/module.yml": template("module.yml", prefix),
        "zephyr/CMakeLists.txt": template("zephyr.cmake", prefix),
        "library.properties": properties.replace("@TITLE@", title).replace("@VERSION@", __version__),
    }
    flash = sum(table.values.nbytes for table in parts.tables)
    texts["memory.json"] = json_text(_memory(parts.arena, parts.tables))
    texts[MANIFEST] = json_text(_manifest(spec, title, parts, how, texts, measured))
    files = {name: text.encode() for name, text in sorted(texts.items())}
    return CLibrary(files, flash, parts.arena, _in_torch(runner, parts.answers))


def library_texts(spec: ArchSpec, title: str, prefix: str, parts: CParts, is_int8: bool) -> dict[str, str]:
    """The files that are the library, by name."""
    kernels = {
        suffix: "".join(template(f"{part}.{suffix}", prefix) for part in ("common", parts.kernels)) for suffix in "ch"
    }
    return {
        f"{prefix}.h": header(spec, title, prefix, parts.arena.size, parts.units, parts.count, parts.counts),
        f"{prefix}.c": parts.source,
        "kernels.h": _filled(kernels["h"] + template("closing.h", prefix), parts.level, is_int8),
        "kernels.c": kernels["c"],
        "weights.h": weights_header(prefix, parts.tables),
        "weights.c": weights_source(prefix, parts.tables),
    }


def weights_digest(tables: Sequence[ConstTable]) -> str:
    """SHA-256 of all constants, one behind the other."""
    return hashlib.sha256(b"".join(np.ascontiguousarray(table.values).tobytes() for table in tables)).hexdigest()


def _filled(header: str, level: str, is_int8: bool) -> str:
    return header.replace("@LEVEL@", level).replace("@INT8@", str(int(is_int8)))


def _in_torch(runner: CNetwork, answers: Sequence[tuple[int, Expected]]) -> tuple[int, int] | None:
    if isinstance(runner, PackedDense):
        return None
    equal = [int(runner(noise(runner.spec, seed)).argmax()) == answer.top1 for seed, answer in answers]
    return sum(equal), len(equal)


def _memory(arena: Arena | ChainArena, tables: Sequence[ConstTable]) -> dict[str, Any]:
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
    spec: ArchSpec,
    title: str,
    parts: CParts,
    how: Preprocessing | None,
    texts: Mapping[str, str],
    measured: Mapping[str, Any] | None,
) -> dict[str, Any]:
    return {
        **stated_of(spec, measured is not None),
        "meliuscli": __version__,
        "network": title,
        "spec": spec.model_dump(mode="json"),
        "int8": measured,
        "preprocessing": None if how is None else asdict(how),
        "weights_sha256": weights_digest(parts.tables),
        "files_sha256": {name: hashlib.sha256(text.encode()).hexdigest() for name, text in sorted(texts.items())},
    }


def require_free(directory: Path, force: bool) -> None:
    """Refuse a directory that is there, and with ``force`` one that holds no library of ours. Raises ``BadInputError``."""
    if not directory.exists():
        return
    if not force:
        raise BadInputError(f"{directory} exists", "name another with --output, or write over it with --force")
    try:
        ours = json.loads((directory / MANIFEST).read_text(encoding="utf-8")).get("format") == FORMAT
    except (OSError, ValueError, AttributeError):
        ours = False
    if not ours:
        raise BadInputError(f"{directory} is no C library of meliuscli; --force does not delete it")


def write_library(library: CLibrary, directory: Path, force: bool = False) -> None:
    """The files in a directory that is there from one moment to the next; with ``force`` in place of a library there.

    Raises ``BadInputError`` as ``require_free``, ``MissingError`` where it cannot be written."""
    require_free(directory, force)
    made = directory.with_name(f".{directory.name}-{os.getpid()}")
    try:
        lay_out(library, made)
        if directory.exists():
            shutil.rmtree(directory)
        made.rename(directory)
    except OSError as error:
        shutil.rmtree(made, ignore_errors=True)
        raise cannot_write(directory, error) from None


def lay_out(library: CLibrary, directory: Path) -> None:
    """The files of a library in a directory that need not be there."""
    for name, content in library.files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
