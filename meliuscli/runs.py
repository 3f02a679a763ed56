"""Recorded trainings: one JSON a run beside the weights of its seeds, found again by the run's short name. No torch."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from meliuscli.errors import BadInputError, MissingError, unknown_name

PREFIX = "run-"
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
class Run:
    """A record and where it lies."""

    path: Path
    fields: dict[str, Any]

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


def checkpoint_directory(directory: Path, run_id: str) -> Path:
    """Where a run is written down while it is trained."""
    return directory / f"{PREFIX}{run_id}.checkpoint"


def find_unfinished(name: str, directory: Path) -> Path:
    """The checkpoint directory of the unfinished run whose short name is or begins with ``name`` (``run:ID`` too).

    Raises ``BadInputError`` for a finished, unknown or ambiguous one."""
    wanted = name.lower().removeprefix("run:")
    ids = _unfinished(directory)
    found = [run_id for run_id in sorted(ids) if wanted and run_id.startswith(wanted)]
    if len(found) == 1:
        return ids[found[0]]
    if found:
        raise BadInputError(f"run {wanted!r}: several begin so: {', '.join(found)}")
    if wanted and any(run.id.startswith(wanted) for run in find_runs(directory)):
        raise BadInputError(f"run:{wanted} is finished", f"meliuscli show run:{wanted}")
    if not ids:
        raise MissingError(f"{directory}: no unfinished runs", "--reports names the directory")
    raise unknown_name("unfinished run", wanted, ids)


def find_runs(directory: Path) -> list[Run]:
    """All runs in a directory, the oldest first. Raises ``BadInputError`` naming a record that is corrupt."""
    paths = directory.glob(f"{PREFIX}*.json") if directory.is_dir() else ()
    return sorted((_read(path) for path in paths), key=lambda run: (run.fields["origin"]["time"], run.id))


def load_run(name: str, directory: Path) -> Run:
    """The run whose short name is or begins with ``name``.

    Raises ``MissingError`` when there are none at all, ``BadInputError`` for an unknown, ambiguous or unfinished one."""
    runs = find_runs(directory)
    found = [run for run in runs if name and run.id.startswith(name.lower())]
    if name and not found and any(run_id.startswith(name.lower()) for run_id in _unfinished(directory)):
        raise BadInputError(f"run:{name} is not finished", f"meliuscli train --resume run:{name}")
    if not runs:
        raise MissingError(
            f"{directory}: no recorded runs", "meliuscli train writes one; --reports names the directory"
        )
    if len(found) == 1:
        return found[0]
    if found:
        raise BadInputError(f"run {name!r}: several begin so: {', '.join(run.id for run in found)}")
    raise unknown_name("run", name, [run.id for run in runs])


def _unfinished(directory: Path) -> dict[str, Path]:
    """The short names of unfinished runs, and their checkpoint directories."""
    suffix = ".checkpoint"
    found = directory.glob(f"{PREFIX}*{suffix}") if directory.is_dir() else ()
    return {path.name.removeprefix(PREFIX).removesuffix(suffix): path for path in found}


def _read(path: Path) -> Run:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        missing = [key for key in KEYS if key not in fields]
    except (OSError, UnicodeDecodeError, ValueError, TypeError) as error:
        raise BadInputError(f"{path}: not a recorded run: {error}") from None
    if (
        missing
        or not isinstance(fields, dict)
        or not isinstance(fields["origin"], dict)
        or "time" not in fields["origin"]
    ):
        raise BadInputError(f"{path}: not a recorded run: it lacks {', '.join(missing) or 'its origin'}")
    return Run(path, fields)
