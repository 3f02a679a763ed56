"""A directory of C read back: its numbers, and the sources that this version writes for them.

Nothing of the directory is compiled. The numbers of ``weights.c`` are read as text and put in place of those of a network of
the manifest's spec; the sources are then written anew, and the directory's must be the same to the last byte."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from meliuscli.counting.memory import memory_of
from meliuscli.errors import BadInputError
from meliuscli.export.c.arena import Arena
from meliuscli.export.c.chain_arena import ChainArena
from meliuscli.export.c.float_network import CNetwork, runner_for_c
from meliuscli.export.c.int8 import Ends
from meliuscli.export.c.int8_run import Int8Network
from meliuscli.export.c.manifest import MANIFEST, Manifest, c_directory, read_manifest
from meliuscli.export.c.parts import parts_of
from meliuscli.export.c.tables import ConstTable
from meliuscli.export.c.vectors import noise
from meliuscli.export.c.writer import CLibrary, library_texts, weights_digest, write_library
from meliuscli.nn.build import build
from meliuscli.packed.program import Array

FEWEST, MOST = 0.5, 24
"""Characters that ``weights.c`` may have for a byte of constants."""
MORE = 2**20
"""And for all that is no number."""
NUMBERS = {"f": r"-?\d+(?:\.\d+)?(?:e[+-]\d+)?f|INFINITY", "u": r"\d+u", "i": r"-?\d+"}
"""As C has them, by numpy's kind of a type."""


@dataclass(frozen=True, slots=True)
class CSources:
    """The library's files by name, as this version writes them, its arena, and its constants."""

    texts: dict[str, str]
    arena: Arena | ChainArena
    tables: tuple[ConstTable, ...]


def read_sources(manifest: Manifest) -> CSources:
    """The library of a directory.

    Raises ``BadInputError`` where a file is missing, damaged, or not what this version writes for its weights,
    ``MissingError`` without the extra ``packed``."""
    there = {name: _text(manifest, name) for name in manifest.sources}
    _check_size(manifest, len(there["weights.c"]))
    with torch.random.fork_rng(devices=[]):
        runner = runner_for_c(build(manifest.spec).eval(), manifest.spec)
    int8 = _int8(manifest, runner, there[f"{manifest.prefix}.c"]) if manifest.is_int8 else None
    parts = parts_of(runner, manifest.prefix, int8, seeds=())
    tables = _read_tables(manifest, parts.tables, there["weights.c"])
    if weights_digest(tables) != manifest.weights_sha256:
        raise _refused(manifest, "weights.c", "its numbers are not those that manifest.json has the digest of")
    parts = replace(parts, tables=tables)
    texts = library_texts(manifest.spec, manifest.title, manifest.prefix, parts, manifest.is_int8)
    for name, text in texts.items():
        if text != there[name]:
            raise _refused(manifest, name, "it is not what this version of meliuscli writes for these weights")
    return CSources(texts, parts.arena, tables)


def _text(manifest: Manifest, name: str) -> str:
    """Of a file that is one, and no larger than any of such a network's can be."""
    path, most = manifest.directory / name, MOST * _counted(manifest) + MORE
    try:
        if not path.is_file() or path.stat().st_size > most:
            raise ValueError(f"no file of at most {most:,} bytes")
        return path.read_bytes().decode()
    except (OSError, ValueError) as error:
        raise _refused(manifest, name, str(error)) from None


def _counted(manifest: Manifest) -> int:
    """Bytes of constants."""
    return memory_of(manifest.spec, 8 if manifest.is_int8 else 32).flash_bytes


def _refused(manifest: Manifest, name: str, why: str) -> BadInputError:
    hint = "another version wrote it, or it was changed; export the network again"
    return BadInputError(f"{manifest.directory / name}: {why}", hint)


def _check_size(manifest: Manifest, characters: int) -> None:
    """Before anything of the network's size is built."""
    counted = _counted(manifest)
    if characters <= FEWEST * counted:
        raise _refused(manifest, "weights.c", f"{characters:,} characters for about {counted:,} bytes of constants")


def _int8(manifest: Manifest, runner: CNetwork, source: str) -> Int8Network:
    """With the one number of an int8 network that is in no table: what its head's inputs are multiplied by."""
    int8 = Int8Network(runner, noise(manifest.spec, 1))
    found = re.search(r"_head head(?:_step)? = \{[^}]*, (\d[^,}]*)f\};", source)
    try:
        inverse = float(np.float32(found[1])) if found else 0.0
    except ValueError:
        inverse = 0.0
    int8.ends = Ends(int8.ends.stem, replace(int8.ends.head, inverse=inverse))
    return int8


def _read_tables(manifest: Manifest, like: Sequence[ConstTable], text: str) -> tuple[ConstTable, ...]:
    found = {match[2]: match[3] for match in re.finditer(r"const (\w+) (\w+)\[\d+\] = \{([^{}]*)\};", text, re.ASCII)}
    return tuple(
        replace(table, values=_values(manifest, table, found.get(f"{manifest.prefix}_{table.name}", "")))
        for table in like
    )


def _values(manifest: Manifest, like: ConstTable, text: str) -> Array:
    """As many numbers as ``like`` has. Those that say where a kernel reads are the network's own."""
    kind, words = like.values.dtype.kind, [word.strip() for word in text.split(",")]
    number = re.compile(NUMBERS[kind], re.ASCII)
    if len(words) != len(like.values) or not all(map(number.fullmatch, words)):
        raise _refused(manifest, "weights.c", f"it has no {len(like.values):,} numbers of {like.ctype} in {like.name}")
    try:
        if kind == "f":
            values = np.array(["nan" if word == "INFINITY" else word[:-1] for word in words]).astype(np.float32)
        else:
            values = np.array([int(word.rstrip("u")) for word in words], like.values.dtype)
    except (ValueError, OverflowError) as error:
        raise _refused(manifest, "weights.c", f"{like.name}: {error}") from None
    if like.name.endswith("_order") and not np.array_equal(values, like.values):
        raise _refused(manifest, "weights.c", f"{like.name} is another order of channels than the network's")
    return values


def copy_library(source: Path, to: Path, force: bool = False) -> None:
    """Write a directory of C again: its library, which is checked, and the files beside it as they are.

    Raises as ``read_sources`` and ``write_library``, and ``BadInputError`` where another file is not that of the manifest."""
    manifest = read_manifest(c_directory(source) or source)
    sources, files = read_sources(manifest), {MANIFEST: _text(manifest, MANIFEST).encode()}
    for name, digest in manifest.files_sha256.items():
        content = (sources.texts[name] if name in sources.texts else _text(manifest, name)).encode()
        if hashlib.sha256(content).hexdigest() != digest:
            raise _refused(manifest, name, "it is not the file that manifest.json has the digest of")
        files[name] = content
    write_library(CLibrary(files, 0, sources.arena), to, force)
