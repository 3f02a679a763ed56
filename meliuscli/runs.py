"""Recorded trainings: one JSON a run beside the weights of its seeds, found again by the run's short name; and those on
their way, to be gone on with. No torch."""

from __future__ import annotations

import hashlib
import json
import os
import statistics
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from meliuscli.errors import BadInputError, unknown_name, why_unread
from meliuscli.results import read_record
from meliuscli.work.folders import REPORTS as REPORTS
from meliuscli.work.folders import RUN

PREFIX = RUN.before
MAX_HEADER = 10**8
"""Bytes of a safetensors file's header, by its definition."""
PACKED_FORMAT = "meliuscli-packed-"
"""What the ``format`` in a packed network's header begins with; its version follows."""
KEYS = (
    "id",
    "arch",
    "archid",
    "trained_as",
    "dataset",
    "recipe",
    "n",
    "validation_top1",
    "test_top1",
    "runs",
    "origin",
)
"""What every record has."""


@dataclass(frozen=True, slots=True)
class Left:
    """How far an unfinished run is: its finished seeds of all, the epochs of the one at hand, and what goes on with it."""

    seeds_done: int
    seeds: int
    epochs_done: float
    epochs: float
    resume: str

    @property
    def sentence(self) -> str:
        if self.seeds_done == self.seeds:  # stopped just before the end was written down
            return f"all {self.seeds} trainings are finished, what is left is to write the record"
        at_hand = f"the next is at epoch {self.epochs_done:.3g} of {self.epochs:g}"
        return f"{self.seeds_done} of {self.seeds} trainings are finished, {at_hand}"


@dataclass(frozen=True, slots=True)
class Run:
    """A record and where it lies. That of an unfinished run has the seeds that are finished, and what is ``left``."""

    path: Path
    fields: dict[str, Any]
    left: Left | None = None

    @property
    def id(self) -> str:
        return str(self.fields["id"])


def new_id(archid: str, dataset: str) -> str:
    """Eight hex digits for a training that begins now."""
    text = f"{archid} {dataset} {datetime.now(UTC).isoformat()} {os.getpid()}"
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def record_path(directory: Path, run_id: str) -> Path:
    return directory / f"{PREFIX}{run_id}.json"


def weights_path(directory: Path, run_id: str, seed: int) -> Path:
    return directory / f"{PREFIX}{run_id}-seed{seed}.safetensors"


def checkpoint_path(directory: Path, seed: int) -> Path:
    return directory / f"seed{seed}.safetensors"


def summary(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and sample standard deviation, as they are recorded; no spread from a single value, nothing from none."""
    return {
        "mean": statistics.fmean(values) if values else None,
        "spread": statistics.stdev(values) if len(values) > 1 else None,
    }


def find_unfinished(name: str, directory: Path) -> Path:
    """The checkpoint directory of the unfinished run whose short name is or begins with ``name`` (``run:ID`` too).

    Raises ``BadInputError`` for a finished, unknown or ambiguous one."""
    wanted, places = name.lower().removeprefix("run:"), _unfinished(directory)
    if not _beginning(wanted, places) and _beginning(wanted, [run.id for run in find_runs(directory)[0]]):
        raise BadInputError(f"run:{wanted} is finished", f"meliuscli show run:{wanted}")
    if not places:
        raise BadInputError(f"{directory}: no unfinished runs", "--reports names the directory")
    return places[_the_one(wanted, places, "unfinished run")]


def find_runs(directory: Path) -> tuple[list[Run], dict[str, BadInputError]]:
    """All recorded runs in a directory, the oldest first; and by short name what is wrong with records that cannot be
    read, which are no reason to refuse the others."""
    runs, broken = list[Run](), dict[str, BadInputError]()
    for path in sorted(directory.glob(f"{PREFIX}*.json")) if directory.is_dir() else ():
        try:
            runs.append(_read(path))
        except BadInputError as error:
            broken[path.stem.removeprefix(PREFIX)] = error
    return _by_age(runs), broken


def list_runs(directory: Path) -> tuple[list[Run], dict[str, BadInputError]]:
    """As ``find_runs``, with those that are unfinished."""
    recorded, broken = find_runs(directory)
    runs = {run.id: run for run in recorded}
    for run_id, place in _unfinished(directory).items():
        try:
            left = _read_unfinished(place)
        except BadInputError as error:
            broken[run_id] = error
        else:  # an interrupted one has a record too
            before = runs[run_id].fields if run_id in runs else {}
            runs[run_id] = replace(left, fields={**before, **left.fields})
    return _by_age(runs.values()), broken


def load_run(name: str, directory: Path, unfinished: bool = False) -> Run:
    """The run whose short name is or begins with ``name``; one that is not finished only where ``unfinished`` allows it.

    Raises ``BadInputError`` for an unknown, ambiguous or unfinished one, and for one that cannot be read."""
    name = name.lower()
    runs, broken = (list_runs if unfinished else find_runs)(directory)
    known: dict[str, Run | BadInputError] = {**broken, **{run.id: run for run in runs}}
    unfinished_ones = _unfinished(directory)
    if not _beginning(name, known) and (found := _beginning(name, unfinished_ones)):
        command = RUN.resume_command(unfinished_ones[found[0]])
        raise BadInputError(f"run:{name} is not finished", f"go on with: {command}")
    if not known:
        raise BadInputError(
            f"{directory}: no recorded runs", "meliuscli train writes one; --reports names the directory"
        )
    run = known[_the_one(name, known, "run")]
    if isinstance(run, BadInputError):
        raise run
    return run


def _beginning(name: str, ids: Collection[str]) -> list[str]:
    """The short names that begin so; none for no name."""
    return [run_id for run_id in sorted(ids) if name and run_id.startswith(name)]


def _the_one(name: str, ids: Collection[str], what: str) -> str:
    found = _beginning(name, ids)
    if len(found) > 1:
        raise BadInputError(f"run {name!r}: several begin so: {', '.join(found)}")
    if not found:
        raise unknown_name(what, name, ids)
    return found[0]


def _by_age(runs: Iterable[Run]) -> list[Run]:
    return sorted(runs, key=lambda run: (str(run.fields["origin"]["time"]), run.id))


def _unfinished(directory: Path) -> dict[str, Path]:
    """The short names of unfinished runs, and their checkpoint directories."""
    found = directory.glob(f"{RUN.before}*{RUN.after}") if directory.is_dir() else ()
    return {RUN.name(path): path for path in found}


def _read_unfinished(place: Path) -> Run:
    """What would be recorded of an unfinished run now. Raises ``BadInputError`` when its files are corrupt."""
    path = place / RUN.marker
    with RUN.reading(path):
        content = json.loads(path.read_text(encoding="utf-8"))
        plan, runs = dict(content["plan"]), list(content["runs"])
        accuracies = {key: summary([float(run[key]) for run in runs]) for key in ("validation_top1", "test_top1")}
        run = Run(path, _checked({**plan, "n": len(runs), **accuracies, "runs": runs}))
        seeds, epochs = int(plan["seeds"]), float(plan["recipe"]["epochs"])
    done = _epochs_done(checkpoint_path(place, len(runs)))
    return replace(run, left=Left(len(runs), seeds, done, epochs, RUN.resume_command(place)))


def safetensors_header(path: Path) -> dict[str, Any]:
    """What stands before the tensors of a file, none of which is read. Raises ``OSError`` or ``ValueError``."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > MAX_HEADER:
            raise ValueError("no header")
        header: dict[str, Any] = json.loads(file.read(size))
        return header


def _epochs_done(checkpoint: Path) -> float:
    """From the header of a checkpoint, whose tensors are not looked at; 0 before there is one."""
    try:
        return float(json.loads(safetensors_header(checkpoint)["__metadata__"]["state"])["epoch"])
    except FileNotFoundError:
        return 0.0
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInputError(
            f"{checkpoint}: corrupt, or no checkpoint: {why_unread(error)}", "delete it to begin this training again"
        ) from None


def _read(path: Path) -> Run:
    try:
        return Run(path, _checked(read_record(path)))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BadInputError(f"{path}: not a recorded run: {why_unread(error)}", "restore it, or delete it") from None


def _checked(fields: dict[str, Any]) -> dict[str, Any]:
    """A record's fields. Raises ``ValueError``, ``TypeError`` or ``KeyError`` when they are none."""
    if missing := [key for key in KEYS if key not in fields]:
        raise ValueError(f"it lacks {', '.join(missing)}")
    origin, spec = fields["origin"], fields["trained_as"]
    _ = fields["dataset"]["name"], fields["recipe"]["epochs"], spec["input_channels"], spec["input_size"]
    _ = origin["command"], origin["time"], origin["machine"]["processor"], origin["versions"]["meliuscli"]
    numbers = [fields[key][of] for key in ("validation_top1", "test_top1") for of in ("mean", "spread")]
    of_seeds = ("seed", "validation_top1", "test_top1", "train_loss", "seconds", "images_per_second")
    numbers += [one[key] for one in fields["runs"] for key in of_seeds]
    for number in numbers:
        float(0 if number is None else number)
    return fields
