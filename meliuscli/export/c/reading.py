"""A directory of C read back: its numbers, and the sources that this version writes for them.

Nothing of the directory is compiled. The numbers of ``weights.c`` are read as text and put in place of those of a network of
the manifest's spec; the sources are then written anew, and the directory's must be the same to the last byte."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from meliuscli.export.c.arena import Arena
from meliuscli.export.c.chain_arena import ChainArena
from meliuscli.export.c.float_network import CNetwork, runner_for_c
from meliuscli.export.c.int8 import Ends
from meliuscli.export.c.int8_run import Int8Network
from meliuscli.export.c.manifest import (
    MANIFEST,
    Manifest,
    c_directory,
    constant_bytes,
    file_bytes,
    library_files,
    read_manifest,
    refused,
)
from meliuscli.export.c.parts import parts_of
from meliuscli.export.c.tables import ConstTable
from meliuscli.export.c.vectors import noise
from meliuscli.export.c.writer import CLibrary, library_texts, weights_digest, write_library
from meliuscli.nn.build import build
from meliuscli.packed.program import Array

FEWEST = 0.5
"""Characters that ``weights.c`` has at least for a byte of constants."""
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
        raise refused(manifest, "weights.c", "its numbers are not those that manifest.json has the digest of")
    parts = replace(parts, tables=tables)
    texts = library_texts(manifest.spec, manifest.title, manifest.prefix, parts, manifest.is_int8)
    for name, text in texts.items():
        if text != there[name]:
            raise refused(manifest, name, "it is not what this version of meliuscli writes for these weights")
    return CSources(texts, parts.arena, tables)


def _text(manifest: Manifest, name: str) -> str:
    try:
        return file_bytes(manifest, name).decode()
    except UnicodeDecodeError as error:
        raise refused(manifest, name, str(error)) from None


def _check_size(manifest: Manifest, characters: int) -> None:
    """Before anything of the network's size is built."""
    counted = constant_bytes(manifest)
    if characters <= FEWEST * counted:
        raise refused(manifest, "weights.c", f"{characters:,} characters for about {counted:,} bytes of constants")


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
        raise refused(manifest, "weights.c", f"it has no {len(like.values):,} numbers of {like.ctype} in {like.name}")
    try:
        if kind == "f":
            values = np.array(["nan" if word == "INFINITY" else word[:-1] for word in words]).astype(np.float32)
        else:
            values = np.array([int(word.rstrip("u")) for word in words], like.values.dtype)
    except (ValueError, OverflowError) as error:
        raise refused(manifest, "weights.c", f"{like.name}: {error}") from None
    if like.name.endswith("_order") and not np.array_equal(values, like.values):
        raise refused(manifest, "weights.c", f"{like.name} is another order of channels than the network's")
    return values


def copy_library(source: Path, to: Path, force: bool = False) -> None:
    """Write a directory of C again: the files that the manifest names, which are checked, and no others.

    Raises as ``read_manifest``, ``read_sources`` and ``write_library``."""
    manifest = read_manifest(c_directory(source) or source)
    arena = read_sources(manifest).arena
    files = {MANIFEST: file_bytes(manifest, MANIFEST), **library_files(manifest)}
    write_library(CLibrary(files, 0, arena), to, force)
