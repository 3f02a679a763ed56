"""What a directory of C says of itself, and the check of all that it says. Nothing in it is compiled; no torch."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meliuscli.arch.spec import ArchSpec
from meliuscli.arch.zoo import spec_from_fields
from meliuscli.counting.memory import memory_of
from meliuscli.data.preprocessing import Preprocessing
from meliuscli.errors import BadInputError, why_unread
from meliuscli.export.c.literals import images_text
from meliuscli.export.c.stated import FORMAT, OTHERS, stated_of

MANIFEST = "manifest.json"
MOST_BYTES = 2**24
"""Of a manifest."""
OF_A_LIBRARY = ("kernels.c", "kernels.h", "weights.c", "weights.h")
"""Its files whose names do not depend on the prefix."""
BESIDE_IT = (
    *("CMakeLists.txt", "library.properties", "memory.json", "test/main.c", "test/vectors.h"),
    *("zephyr/CMakeLists.txt", "zephyr/module.yml"),
)
"""Files of a directory that are no part of the library."""
CHARACTERS = 24
"""That ``weights.c`` may have for a byte of constants."""
MORE = 2**20
"""And a file for all that is no number."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """``title`` is the network's name as its header has it, ``prefix`` what begins the names in C; ``is_int8``: stem and head
    are in 8 bits. ``weights_sha256`` is the digest of all constants, ``files_sha256`` those of all files but the manifest."""

    directory: Path
    title: str
    prefix: str
    spec: ArchSpec
    preprocessing: Preprocessing | None
    is_int8: bool
    weights_sha256: str
    files_sha256: Mapping[str, str]

    @property
    def sources(self) -> tuple[str, ...]:
        """The files that are the library."""
        return *OF_A_LIBRARY, f"{self.prefix}.c", f"{self.prefix}.h"


def c_directory(path: Path) -> Path | None:
    """The directory that is named, itself or by its manifest, where it has one; None for anything else."""
    directory = path.parent if path.name == MANIFEST else path
    try:
        return directory if (directory / MANIFEST).is_file() else None
    except OSError:  # a name that no file can have
        return None


def read_manifest(directory: Path) -> Manifest:
    """What a directory says of itself, after a check of all that it says: the fields of the manifest against its network, what images
    go through against ``test/vectors.h``, every file against its digest. Files that the manifest does not name are not looked at.

    Raises ``BadInputError`` for a directory that ``export --to c`` has not written, or that was changed."""
    manifest, fields = _parsed(directory)
    texts = library_files(manifest)
    stated = stated_of(manifest.spec, manifest.is_int8)
    if missing := {*stated, *OTHERS} ^ set(fields):
        raise refused(manifest, MANIFEST, f"its fields are not those of a manifest: {', '.join(sorted(missing))}")
    for name, value in stated.items():
        if fields[name] != value:
            raise refused(manifest, MANIFEST, f"{name} is not that of its network")
    _check_images(manifest, texts["test/vectors.h"])
    upper = manifest.prefix.upper()
    if f"#define {upper}_INT8 {int(manifest.is_int8)}\n".encode() not in texts["kernels.h"]:
        raise refused(manifest, MANIFEST, "int8 is not what kernels.h says")
    if not texts[f"{manifest.prefix}.h"].startswith(f"/* {manifest.title}\n".encode()):
        raise refused(manifest, MANIFEST, f"network is not what {manifest.prefix}.h is called")
    return manifest


def library_files(manifest: Manifest) -> dict[str, bytes]:
    """All files that the manifest names. Raises ``BadInputError`` where one is not there or not that of its digest."""
    files = {name: file_bytes(manifest, name) for name in manifest.files_sha256}
    for name, content in files.items():
        if hashlib.sha256(content).hexdigest() != manifest.files_sha256[name]:
            raise refused(manifest, name, "it is not the file that manifest.json has the digest of")
    return files


def file_bytes(manifest: Manifest, name: str) -> bytes:
    """Of a file that is one, and no larger than any of such a network's can be."""
    path = manifest.directory / name
    most = CHARACTERS * constant_bytes(manifest) + MORE
    try:
        if not path.is_file():
            raise ValueError("no such file")
        if path.stat().st_size > most:
            raise ValueError(f"no file of at most {most:,} bytes")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise refused(manifest, name, str(error)) from None


def constant_bytes(manifest: Manifest) -> int:
    """As counted."""
    return memory_of(manifest.spec, 8 if manifest.is_int8 else 32).flash_bytes


def refused(manifest: Manifest, name: str, why: str) -> BadInputError:
    hint = "another version wrote it, or it was changed; export the network again"
    return BadInputError(f"{manifest.directory / name}: {why}", hint)


def _check_images(manifest: Manifest, vectors: bytes) -> None:
    """What images go through fits the network, and is what ``vectors.h`` says."""
    how, spec = manifest.preprocessing, manifest.spec
    if how is not None:
        if (how.channels, how.input_size) != (spec.input_channels, spec.input_size):
            raise refused(manifest, MANIFEST, "preprocessing is for images of another shape")
        if len(how.class_names) not in (0, spec.num_classes):
            names = f"{len(how.class_names)} class names for {spec.num_classes} classes"
            raise refused(manifest, MANIFEST, f"preprocessing has {names}")
    if images_text(manifest.prefix, how, spec.num_classes).encode() not in vectors:
        raise refused(manifest, MANIFEST, "preprocessing is not what test/vectors.h says")


def _parsed(directory: Path) -> tuple[Manifest, dict[str, Any]]:
    """The manifest, and its fields as they stand there."""
    path = directory / MANIFEST
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
        fields = json.loads(content)
        if fields.get("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        _check_types(fields)
        spec = spec_from_fields(fields["spec"], f"{path}: ")
        if fields["archid"] != spec.archid:
            raise ValueError(f"its network is {spec.archid}, not {fields['archid']}")
        how = fields["preprocessing"]
        manifest = Manifest(
            directory,
            clean_title(str(fields["network"])),
            _prefix(fields["files_sha256"]),
            spec,
            None if how is None else Preprocessing.from_fields(how),
            fields["int8"] is not None,
            str(fields["weights_sha256"]),
            _digests(fields["files_sha256"]),
        )
        return manifest, fields
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadInputError(f"{path}: no manifest of a C library of meliuscli: {why_unread(error)}") from None


def _check_types(fields: dict[str, Any]) -> None:
    """Of the fields that are not held against anything by their values."""
    for name in ("meliuscli", "network", "archid", "weights_sha256"):
        if not isinstance(fields[name], str):
            raise ValueError(f"{name} is no text")
    for name in ("spec", "files_sha256"):
        if not isinstance(fields[name], dict):
            raise ValueError(f"{name} is no table")
    if not isinstance(fields["int8"], dict | None):
        raise ValueError("int8 is no table")


def clean_title(name: str) -> str:
    """A network's name as it may stand in a comment of C."""
    return re.sub(r"[^\w .:+-]", "_", name)


def _digests(files: dict[str, Any]) -> dict[str, str]:
    """No names but those that a library has: none leads out of the directory."""
    prefix = _prefix(files)
    if set(files) != {*OF_A_LIBRARY, *BESIDE_IT, f"{prefix}.c", f"{prefix}.h"}:
        raise ValueError("its files are not those of a library")
    return {name: str(digest) for name, digest in files.items()}


def _prefix(files: dict[str, Any]) -> str:
    """Of the one header that is not the same in every library."""
    names = [match[1] for name in files if (match := re.fullmatch(r"([a-z][a-z0-9_]{0,62})\.h", name))]
    own = [name for name in names if f"{name}.h" not in OF_A_LIBRARY]
    if len(own) != 1:
        raise ValueError("it does not name the library's header")
    return own[0]
