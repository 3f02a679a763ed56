"""Which process does a piece of shared work, and whether it is still there to do it."""

from __future__ import annotations

import os
import socket
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Owner:
    """A process on a machine. ``place`` is the host's name, its boot and its namespace of process numbers: where all
    three are ours, so are the numbers. ``started`` is the process's start in ticks since boot, which tells it from a later
    one of its number."""

    place: str
    pid: int
    started: int
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    @classmethod
    def here(cls) -> Self:
        """This process."""
        return cls(_place(), os.getpid(), _started(os.getpid()) or 0)

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Self:
        return cls(**fields)

    def fields(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @property
    def is_near(self) -> bool:
        """Can this process see whether that one runs?"""
        return self.place == _place()

    @property
    def is_gone(self) -> bool:
        """Has a near process ended? One that nobody has waited for yet has ended, too."""
        return _started(self.pid) != self.started

    @property
    def is_near_and_gone(self) -> bool:
        """Does this process know that that one has ended?"""
        return self.is_near and self.is_gone


def _place() -> str:
    return "/".join((socket.gethostname(), _text(Path("/proc/sys/kernel/random/boot_id")), _namespace()))


def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _started(pid: int) -> int | None:
    """When a process began, 0 where the system does not say; None for one that has ended."""
    if Path("/proc/self/stat").exists():
        fields = _text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
        return int(fields[19]) if fields and fields[0] not in "ZX" else None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        return 0
    return 0
