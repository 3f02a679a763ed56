"""The C files beside this one, for torch's CPU tensors: compiled by the C compiler found at first use, in about a second, and kept.

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

import torch
from torch import Tensor

from meliuscli.results import cache_directory

SOURCES = sorted(Path(__file__).parent.glob("*.[ch]"))
MAIN = Path(__file__).with_name("kernels.c")
FLAGS = ("-O3", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
VARIANTS = (("-march=native", "-fopenmp"), ("-march=native",), ())
"""Tried in this order: the compilers of some systems know no OpenMP, or no name for the processor at hand."""

CHUNKS = 16
"""As in kernels.c: the number of parts in which sums are formed."""

SUFFIX = {torch.float32: "f32", torch.float64: "f64", torch.bfloat16: "bf16"}


class Kernels:
    """Calls a kernel by name for tensors of an element type."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self.has_xnor = bool(library.has_xnor())
        """Whether the processor counts bits in vectors (AVX-512 VPOPCNTDQ, or AVX2's byte shuffles)."""
        self.vector_bytes = int(library.direct_vector_bytes())
        """Size of the vectors of ``direct``, which takes the gradients of convolutions with few outputs; 0 on a processor
        for which it is not written (it is for AVX2 and AVX-512)."""
        self.has_bfloat16 = bool(library.has_bf16())
        """Whether the processor multiplies bfloat16."""
        self.lanes = int(library.xnor_lanes())
        """Outputs in a vector of ``xnor``: its weights are padded to a multiple."""

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
            return Kernels(_library(compiler, variant))
        except (OSError, subprocess.SubprocessError):
            continue
    return None


def _library(compiler: str, variant: tuple[str, ...]) -> ctypes.CDLL:
    """The library, from the cache where it is there and whole. Its name holds what it was made of: sources, flags, and
    the macros that tell the compiler's version and the processor's instructions."""
    command = [compiler, *FLAGS, *variant]
    macros = subprocess.run([*command, "-dM", "-E", "-x", "c", os.devnull], capture_output=True, check=True, timeout=60)
    parts = [path.read_bytes() for path in SOURCES] + [macros.stdout, repr(command).encode()]
    path = cache_directory() / "kernels" / f"kernels-{hashlib.sha256(b''.join(parts)).hexdigest()[:16]}.so"
    if path.exists():
        try:
            return ctypes.CDLL(str(path))
        except OSError:
            path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        made = Path(scratch) / path.name
        subprocess.run([*command, str(MAIN), "-o", str(made)], capture_output=True, check=True, timeout=120)
        made.replace(path)
    return ctypes.CDLL(str(path))
