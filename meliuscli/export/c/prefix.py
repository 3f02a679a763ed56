"""What all names of a C library begin with, and its header and its main source are called."""

from __future__ import annotations

import re

from meliuscli.errors import BadInputError

TARGETS = ("all", "clean", "help", "install", "package", "test")
"""Names that CMake keeps for itself."""
FILES = ("kernels", "main", "vectors", "weights")
"""Of a library: a header of that name would write over another, or be read in its place."""
HEADERS = (
    *(
        "assert",
        "complex",
        "ctype",
        "errno",
        "fenv",
        "float",
        "inttypes",
        "iso646",
        "limits",
        "locale",
        "math",
        "setjmp",
    ),
    *("signal", "stdalign", "stdarg", "stdatomic", "stdbool", "stddef", "stdint", "stdio", "stdlib", "stdnoreturn"),
    *("string", "tgmath", "threads", "time", "uchar", "wchar", "wctype"),
    *(
        "alloca",
        "endian",
        "features",
        "malloc",
        "memory",
        "strings",
        "unistd",
        "xlocale",
        "newlib",
        "immintrin",
        "arm_neon",
    ),
)
"""Of C, and those that its headers include: the library's directory is searched before the system's."""


def prefix_of(name: str) -> str:
    """A network's name as the beginning of names in C, as a target of CMake and as a file."""
    text = re.sub(r"[^a-z0-9]+", "_", name.partition("[")[0].lower()).strip("_")[:40]
    return text if re.match("[a-z]", text) and text not in (*TARGETS, *FILES, *HEADERS) else f"net_{text}"


def require_prefix(text: str) -> str:
    """A prefix as the user gave it. Raises ``BadInputError`` where C or CMake would not take it, or another header is called so."""
    if not re.fullmatch("[a-z][a-z0-9_]{0,62}", text) or text in TARGETS:
        raise BadInputError(f"--prefix {text}: no name in C", "take lower-case letters, digits and _, a letter first")
    if text in (*FILES, *HEADERS):
        whose = "a file of the library" if text in FILES else "a header of the compiler"
        raise BadInputError(
            f"--prefix {text}: {text}.h would take the place of {whose}", f"take another, as net_{text}"
        )
    return text
