"""One process's part in a shared study, from its joining to its leaving."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from meliuscli.errors import BadInputError, InterruptedByUser, MissingError
from meliuscli.results import cache_directory
from meliuscli.search.addresses import open_backend
from meliuscli.search.backend import Waits, told_once
from meliuscli.search.begin import Asked
from meliuscli.search.membership import Header, create_shared, join
from meliuscli.search.shared import SharedStudy
from meliuscli.search.worker import ChildTrainer, Leave, Worker
from meliuscli.training.devices import HeldDevice, hold_gpu, visible_gpus
from meliuscli.work.folders import STUDY
from meliuscli.work.listener import SILENT, Listener


@dataclass(frozen=True, slots=True)
class Departure:
    """How a worker's part ended."""

    sentence: str
    is_done: bool
    interrupted: bool


def join_and_work(
    name: str,
    storage: str,
    reports: Path,
    time_limit: float | None = None,
    max_trials: int | None = None,
    device: str | None = None,
    per_device: int = 1,
    data: Path | None = None,
    listener: Listener = SILENT,
) -> Departure:
    """Be a worker. Raises as ``join`` and ``Worker.run``."""
    directory = STUDY.named(reports, name)
    with (
        Leave.on_signals(time_limit) as leave,
        closing(open_backend(storage, directory, waits=_until_due(leave, listener))) as backend,
    ):
        study = join(backend, name, directory, data, listener)
        return _work(study, leave, max_trials, device, per_device, listener)


def search_together(
    asked: Asked, name: str, storage: str, reports: Path, workers: int, listener: Listener = SILENT
) -> tuple[SharedStudy, Header, Departure]:
    """Make the study unless it is there, and work on it with ``workers`` processes, this one among them."""
    directory = STUDY.named(reports, name)
    with Leave.on_signals() as leave:
        if workers > 1 and storage.startswith("sqlite"):
            raise BadInputError(
                f"--storage {storage}: SQLite is for one worker: it locks the whole file, and writers that wait fail",
                "--workers 1, or a journal file or PostgreSQL",
            )
        backend = open_backend(storage, directory, create=True, waits=_until_due(leave, listener))
        study, header = create_shared(asked, backend, name, directory, workers, listener)
        others = [_start_worker(name, storage, reports, asked, workers) for _ in range(workers - 1)]
        try:
            left = _work(study, leave, None, None, workers, listener)
        finally:
            for other in others:
                if leave.is_due:
                    other.terminate()
                other.wait()
    return study, header, left


def _until_due(leave: Leave, listener: Listener) -> Waits:
    """A server is waited for until this process has to leave. Raises ``InterruptedByUser`` on Ctrl-C."""

    def is_due() -> bool:
        if leave.interrupted:
            raise InterruptedByUser("interrupted; nothing was begun", "the same command begins again")
        return leave.is_due

    return told_once(listener, is_due)


def _work(
    study: SharedStudy, leave: Leave, max_trials: int | None, device: str | None, per_device: int, listener: Listener
) -> Departure:
    held = hold_device(device or study.settings.device.partition(":")[0], per_device)
    study.settings = replace(study.settings, device=held.name)
    listener.begun(study.name, asdict(study.settings))
    worker = Worker(study, ChildTrainer(), leave, listener, max_trials)
    is_done = worker.run()
    why = "the study is done" if is_done else leave.reason or f"--max-trials {max_trials}"
    count = f"{worker.num_done} training{'s' * (worker.num_done != 1)}"
    return Departure(f"{study.name}: {count} by this worker; it leaves: {why}", is_done, leave.interrupted)


def _start_worker(name: str, storage: str, reports: Path, asked: Asked, workers: int) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "meliuscli", *shlex.split(STUDY.resume_command(reports / name, storage))[1:]]
    more: Sequence[str] = [] if asked.data is None else ["--data", str(asked.data)]
    return subprocess.Popen([*words, *more, "--per-device", str(workers)], stdout=subprocess.DEVNULL)


def hold_device(device: str, per_device: int) -> HeldDevice:
    """The device of ``--device``, held for this process; of several GPUs one that is free.

    Raises ``MissingError`` for one that is not there or not free, ``BadInputError`` for no name of one."""
    import torch

    from meliuscli.training.execution import find_device

    kind, _, number = device.partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or (number and not (number.isdigit() and kind == "cuda")):
        raise BadInputError(f"--device {device}: no device", "auto, cpu, cuda, cuda:0 or mps")
    chosen = find_device(kind)  # type: ignore[arg-type]
    if not chosen.startswith("cuda"):
        return HeldDevice(chosen, None)
    gpus = visible_gpus(torch.cuda.device_count())
    if not gpus:
        raise MissingError("--device cuda: there is no GPU")
    return hold_gpu(gpus, per_device, cache_directory() / "devices", int(number) if number else None)
