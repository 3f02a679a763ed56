"""What a directory of C says of itself: its network and what images go through. Nothing in it is compiled; no torch."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meliuscli.arch.spec import ArchSpec
from meliuscli.arch.zoo import spec_from_fields
from meliuscli.data.preprocessing import Preprocessing
from meliuscli.errors import BadInputError, why_unread

FORMAT, MANIFEST = "meliuscli-c-1", "manifest.json"
MOST_BYTES = 2**24
"""Of a manifest."""
OF_A_LIBRARY = ("kernels.c", "kernels.h", "weights.c", "weights.h")
"""Its files whose names do not depend on the prefix."""
BESIDE_IT = (
    *("CMakeLists.txt", "library.properties", "memory.json", "test/main.c", "test/vectors.h"),
    *("zephyr/CMakeLists.txt", "zephyr/module.yml"),
)
"""Files of a directory that are no part of the library."""


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
    """Raises ``BadInputError`` for a directory that ``export --to c`` has not written."""
    path = directory / MANIFEST
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
        fields = json.loads(content)
        if fields.get("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        spec = spec_from_fields(fields["spec"], f"{path}: ")
        if fields["archid"] != spec.archid:
            raise ValueError(f"its network is {spec.archid}, not {fields['archid']}")
        how = fields["preprocessing"]
        return Manifest(
            directory,
            clean_title(str(fields["network"])),
            _prefix(fields["files_sha256"]),
            spec,
            None if how is None else Preprocessing.from_fields(how),
            fields["int8"] is not None,
            str(fields["weights_sha256"]),
            _digests(fields["files_sha256"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadInputError(f"{path}: no manifest of a C library of meliuscli: {why_unread(error)}") from None


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
