"""Instruction sets that kernels are generated for, and the one that this machine is best at."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from types import ModuleType

from meliuscli.errors import BadInputError, MissingError, unknown_name


@dataclass(frozen=True, slots=True)
class Isa:
    """``lanes`` 32-bit lanes a vector. A kernel keeps ``pixels`` x ``vectors`` sums in registers (``float_pixels`` x
    ``float_vectors`` of a float one). ``counts_words``: the popcount of 32-bit lanes is one instruction; without it
    bytes are counted. ``registers`` of vectors; ``needs`` are the features that the host must have, ``target`` LLVM's
    CPU and features where they are not all that the host has."""

    name: str
    lanes: int
    vectors: int
    pixels: int
    float_vectors: int
    float_pixels: int
    counts_words: bool
    registers: int
    needs: tuple[str, ...]
    target: tuple[str, str] | None


V4 = "+avx512f,+avx512bw,+avx512vl,+avx512dq,+avx512cd"
ISAS = {
    isa.name: isa
    for isa in (
        Isa("avx512-vpopcnt", 16, 4, 7, 4, 7, True, 32, ("avx512vpopcntdq", "avx512bw", "avx512vl"), None),
        Isa("avx512bw", 16, 4, 4, 4, 7, False, 32, ("avx512bw", "avx512vl"), ("x86-64-v3", V4)),
        Isa("avx2", 8, 2, 4, 2, 6, False, 16, ("avx2", "fma"), ("x86-64-v3", "")),
        Isa("sse", 4, 2, 4, 2, 6, False, 16, ("sse4.2", "popcnt"), ("x86-64-v2", "")),
        Isa("neon", 4, 4, 4, 4, 5, False, 32, (), None),
    )
}
"""From the fastest on."""
ARM = "aarch64-unknown-linux-gnu"
"""What NEON kernels are made for on another machine (to be checked under an emulator)."""


def llvm() -> ModuleType:
    """llvmlite's binding. Raises ``MissingError`` where the extra is not installed."""
    try:
        import llvmlite.binding as binding
    except ImportError:
        raise no_llvmlite() from None
    return binding  # type: ignore[no-any-return]


def no_llvmlite() -> MissingError:
    return MissingError("bit-packed kernels need llvmlite, which is not installed", "pip install 'meliuscli[packed]'")


def is_arm() -> bool:
    return platform.machine().lower() in ("aarch64", "arm64")


def host_isas() -> tuple[str, ...]:
    """Names of the instruction sets that this machine can run, the fastest first."""
    if is_arm():
        return ("neon",)
    features = llvm().get_host_cpu_features()
    return tuple(isa.name for isa in ISAS.values() if isa.needs and all(features.get(need) for need in isa.needs))


def choose_isa(name: str | None = None) -> Isa:
    """The named instruction set, or the fastest of this machine.

    Raises ``BadInputError`` for an unknown name, and where this machine cannot run it."""
    can_run = host_isas()
    if not can_run:
        raise MissingError(f"no packed kernels for this processor ({llvm().get_host_cpu_name()})")
    if name is None:
        return ISAS[can_run[0]]
    if name not in ISAS:
        raise unknown_name("instruction set", name, ISAS)
    if name not in can_run:
        raise BadInputError(f"this machine cannot run {name}", f"it can run {', '.join(can_run)}")
    return ISAS[name]
