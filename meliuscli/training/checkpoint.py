"""A training written down after a step: one safetensors file with the tensors, and the state as JSON in its header.

One file is whole or not there; two could come from two steps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from meliuscli.errors import BadInputError, why_unread
from meliuscli.results import write_bytes
from meliuscli.training.loop import EpochMetrics, Training
from meliuscli.training.weights import tensors_digest


@dataclass(frozen=True, slots=True)
class Progress:
    """What a training has given so far. ``seconds`` and ``joules`` are those spent on it."""

    step: int = 0
    curve: tuple[EpochMetrics, ...] = ()
    seconds: float = 0.0
    joules: float | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A file, and ``made_for``: the network, recipe, data and seed that it has to be of, as plain JSON values."""

    path: Path
    made_for: Mapping[str, Any]

    def save(self, training: Training, progress: Progress) -> None:
        """Replace the last checkpoint. Raises ``FailedError`` when the training has diverged, ``MissingError`` when it
        cannot be written; the last one is then still there."""
        training.check_finite()
        tensors = training.tensors()
        # The epoch is for who only reads the header.
        about = {"made_for": dict(self.made_for), "progress": asdict(progress), "epoch": training.epoch}
        state = json.dumps(about)
        write_bytes(self.path, save(tensors, {"state": state, "digest": tensors_digest(tensors, state)}))

    def restore(self, training: Training) -> Progress:
        """Bring a fresh training to where the checkpoint was; no file is no progress. Nothing is executed.

        Raises ``BadInputError`` when it is corrupt, or of another network, recipe, data set or seed."""
        if not self.path.exists():
            return Progress()
        state, tensors = self._read()
        for key, value in self.made_for.items():
            if state["made_for"].get(key) != value:
                raise BadInputError(f"{self.path}: a checkpoint of another training: its {key} differs")
        try:
            kept = state["progress"]
            curve = tuple(EpochMetrics(**metrics) for metrics in kept["curve"])
            progress = Progress(**{**kept, "curve": curve})
            training.restore(tensors, progress.step)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise BadInputError(f"{self.path}: does not fit the training: {str(error).splitlines()[0]}") from None
        return progress

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)

    def _read(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        try:
            with safe_open(self.path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            state = json.loads(metadata["state"])
            if metadata["digest"] != tensors_digest(tensors, metadata["state"]):
                raise ValueError("its content is not what was written")
            if not isinstance(state["made_for"], dict):
                raise ValueError("its state is no checkpoint's")
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise BadInputError(
                f"{self.path}: corrupt, or no checkpoint: {why_unread(error)}", "delete it to begin this training again"
            ) from None
        return state, tensors
