"""Which GPU a process takes: a free one of those that it sees, or one of several places on one."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from meliuscli.errors import BadInputError, MissingError


@dataclass(frozen=True, slots=True)
class HeldDevice:
    """A torch device that is held until the process ends or ``release`` is called."""

    name: str
    lock: Any

    def release(self) -> None:
        self.lock.release()


def visible_gpus(count: int) -> list[str]:
    """Names of the ``count`` GPUs that torch sees which other processes give them, too: in ``CUDA_VISIBLE_DEVICES``
    numbers or UUIDs, without it numbers."""
    words = [word.strip() for word in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    return words[:count] if any(words) and len(words) >= count else list(map(str, range(count)))


def hold_gpu(gpus: Sequence[str], per_device: int, locks: Path, wanted: int | None = None) -> HeldDevice:
    """The GPU with most places free, of ``per_device`` each; ``wanted`` is the one that it must be. ``locks`` is a directory
    of this user.

    Raises ``MissingError`` where none is free, ``BadInputError`` for one that is not there."""
    if wanted is not None and wanted >= len(gpus):
        raise BadInputError(f"--device cuda:{wanted}: there are {len(gpus)}", "count from cuda:0")
    locks.mkdir(parents=True, exist_ok=True)
    host = socket.gethostname()  # the directory may be on a file system that machines share
    for place in range(per_device):
        for index, gpu in enumerate(gpus):
            if wanted in (None, index):
                lock = filelock.FileLock(locks / f"{host}-gpu{re.sub('[^A-Za-z0-9-]', '_', gpu)}-{place}")
                try:
                    lock.acquire(timeout=0)
                except filelock.Timeout:
                    continue
                return HeldDevice(f"cuda:{index}", lock)
    which = "every GPU" if wanted is None else f"cuda:{wanted}"
    raise MissingError(
        f"{which} of this machine has {per_device} worker{'s' * (per_device > 1)} already",
        "start fewer workers, or let more share one with --per-device",
    )
