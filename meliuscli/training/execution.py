"""On what and how a training runs, apart from its recipe: device, precision, compiled or not. Written with its result."""

from __future__ import annotations

import os
import platform
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import torch

from meliuscli.errors import MissingError
from meliuscli.training.recipe import Recipe

DeviceName = Literal["auto", "cpu", "cuda", "mps"]


@dataclass(frozen=True, slots=True)
class Execution:
    """``notes`` say why precision and compilation were chosen. ``threads`` are torch's on the CPU."""

    device: str = "cpu"
    precision: Literal["float32", "bfloat16"] = "float32"
    compiled: bool = False
    threads: int = 1
    processes: int = 1
    device_name: str = ""
    notes: tuple[str, ...] = ()

    @classmethod
    def plain(cls, recipe: Recipe, device: str = "cpu") -> Self:
        """On a device as it is, nothing measured: ``auto`` is float32."""
        precision: Literal["float32", "bfloat16"] = "bfloat16" if recipe.precision == "bfloat16" else "float32"
        return cls(device, precision, threads=torch.get_num_threads(), device_name=_own_name(device))

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Self:
        return cls(**{**fields, "notes": tuple(fields["notes"])})

    def fields(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {**asdict(self), "notes": list(self.notes)}

    def autocast(self) -> AbstractContextManager[object]:
        """The context of a forward pass."""
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(torch.device(self.device).type, dtype=torch.bfloat16)


def find_device(name: DeviceName) -> str:
    """A torch device: the one asked for, or for ``auto`` the first of CUDA, MPS and CPU. Under torchrun each process
    takes the CUDA device of its own number.

    Raises ``MissingError`` for one that this machine or this torch does not have."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    chosen = next(kind for kind, there in available.items() if there) if name == "auto" else name
    if not available[chosen]:
        there = ", ".join(kind for kind, is_there in available.items() if is_there)
        raise MissingError(
            f"--device {chosen}: torch {torch.__version__} finds no such device", f"on this machine: {there}"
        )
    if chosen == "cuda":
        index = int(os.environ.get("LOCAL_RANK", "0"))
        if index >= torch.cuda.device_count():
            raise MissingError(
                f"--device cuda: process {index} has no device of its own, there are {torch.cuda.device_count()}",
                "start at most that many processes a machine (--nproc-per-node)",
            )
        return f"cuda:{index}"
    return chosen


def _own_name(device: str) -> str:
    return "" if device == "cpu" else describe_device(device)


def describe_device(device: str) -> str:
    """The device's own name, where it has one."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.machine()


def has_bfloat16(device: str) -> bool:
    """Does the device compute in bfloat16, rather than imitate it?"""
    if device.startswith("cuda"):
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device == "mps":
        return False
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(key) for key in ("avx512_bf16", "amx_bf16", "bf16", "arm_bf16", "sve_bf16"))
