"""The C library held against the packed runner: compiled by this machine's C compiler, it runs its test vectors."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from meliuscli.errors import FailedError
from meliuscli.export.c.writer import CLibrary, lay_out

FLAGS = ("-std=c11", "-pedantic", "-Wall", "-Wextra", "-Werror", "-O2")
NAMES = ("cc", "gcc", "clang")


def compiler() -> str | None:
    """``$CC``, or the machine's."""
    return next((found for name in (os.environ.get("CC", ""), *NAMES) if name and (found := shutil.which(name))), None)


def compile_library(library: CLibrary, directory: Path, *command: str) -> Path:
    """The program of the test vectors, made in ``directory`` by a compiler and its flags.

    Raises ``FailedError`` with the compiler's first words where it refuses."""
    lay_out(library, directory)
    program = directory / "vectors"
    sources = [name for name in library.files if name.endswith(".c")]
    made = subprocess.run(
        [*command, "-I.", *sources, "-o", program.name], cwd=directory, capture_output=True, text=True, check=False
    )
    if made.returncode:
        raise FailedError(f"{Path(command[0]).name} does not compile the library: {made.stderr.strip()[:500]}")
    return program


def run_vectors(library: CLibrary) -> str | None:
    """The name of the compiler whose program gives what the packed runner gives on all vectors; None without a compiler.

    Raises ``FailedError`` where it gives something else."""
    command = compiler()
    if command is None:
        return None
    with tempfile.TemporaryDirectory() as directory:
        program = compile_library(library, Path(directory), command, *FLAGS)
        ran = subprocess.run([program], capture_output=True, text=True, check=False)
    if ran.returncode:
        raise FailedError(f"the C library counts otherwise than the packed runner: {ran.stdout.strip()[-500:]}")
    return Path(command).name
