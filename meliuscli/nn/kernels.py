"""kernels.c for torch's CPU tensors: compiled by the C compiler found at first use, in about a second, and kept.

Without a compiler ``kernels()`` is None and the networks run in torch's own operations, to the same results, slower."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import platformdirs
import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("kernels.c")
FLAGS = ("-O3", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
VARIANTS = (("-march=native", "-fopenmp"), ("-march=native",), ())
"""Tried in this order: the compilers of some systems know no OpenMP, or no name for the processor at hand."""

SUFFIX = {torch.float32: "f32", torch.float64: "f64", torch.bfloat16: "bf16"}


class Kernels:
    """Calls a kernel by name for tensors of an element type."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self.has_xnor = bool(library.has_xnor())
        """Whether the processor counts bits in vectors (AVX-512 VPOPCNTDQ)."""

    def __call__(self, name: str, dtype: torch.dtype, *arguments: Tensor | float | int | None) -> None:
        """Tensors go as pointers, ints as long, floats as the accumulator's type; the number of threads is torch's.

        Raises ``MemoryError`` where the kernel found none."""
        real = ctypes.c_double if dtype == torch.float64 else ctypes.c_float
        converted: list[ctypes.c_void_p | ctypes.c_long | ctypes.c_float | ctypes.c_double] = []
        for argument in arguments:
            if isinstance(argument, Tensor) or argument is None:
                converted.append(ctypes.c_void_p(None if argument is None else argument.data_ptr()))
            else:
                converted.append(real(argument) if isinstance(argument, float) else ctypes.c_long(argument))
        if getattr(self._library, f"{name}_{SUFFIX[dtype]}")(*converted, ctypes.c_int(torch.get_num_threads())):
            raise MemoryError(f"no memory for the sums of {name}")


@cache
def kernels() -> Kernels | None:
    """The compiled kernels, or None where there is no compiler that can make them."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None or os.environ.get("MELIUSCLI_KERNELS") == "off":
        return None
    for variant in VARIANTS:
        try:
            return Kernels(ctypes.CDLL(str(_compiled(compiler, variant))))
        except (OSError, subprocess.SubprocessError):
            continue
    return None


def _compiled(compiler: str, variant: tuple[str, ...]) -> Path:
    """The library, from the cache where it is there. Its name holds what it was made of: source, flags, and the macros
    that tell the compiler's version and the processor's instructions."""
    command = [compiler, *FLAGS, *variant]
    macros = subprocess.run([*command, "-dM", "-E", "-x", "c", os.devnull], capture_output=True, check=True, timeout=60)
    key = hashlib.sha256(SOURCE.read_bytes() + macros.stdout + repr(command).encode()).hexdigest()[:16]
    folder = platformdirs.user_cache_path("meliuscli") / "kernels"
    path = folder / f"kernels-{key}.so"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = Path(scratch) / path.name
            subprocess.run([*command, str(SOURCE), "-o", str(made)], capture_output=True, check=True, timeout=120)
            made.replace(path)
    return path
