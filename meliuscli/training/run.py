"""One training from a seed to its result, and the summary of several."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from torch import nn

from meliuscli.arch.spec import ArchSpec
from meliuscli.data.batches import Prepared
from meliuscli.errors import InterruptedByUser
from meliuscli.training.chance import is_at_chance
from meliuscli.training.checkpoint import Checkpoint, Progress
from meliuscli.training.energy import EnergyMeter
from meliuscli.training.execution import Execution
from meliuscli.training.loop import EpochMetrics, Training
from meliuscli.training.network import build_for_training
from meliuscli.training.processes import Processes
from meliuscli.training.recipe import Recipe
from meliuscli.training.scoring import evaluate

SAVE_SECONDS = 180.0
"""A long epoch is written down this often."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """What one training gave. ``test_top1`` is None unless the run was asked to score the test split, once, at the
    end. ``seconds`` is wall time of the training, validation included, and ``energy_joules`` what the machine's
    processors took in it, where it can be read. ``untrained`` holds scores of the network before its first step;
    ``at_chance`` is said by whoever judges a training by its validation, ``taught_by`` by whoever trained its teacher."""

    seed: int
    curve: tuple[EpochMetrics, ...]
    test_top1: float | None
    seconds: float
    images_per_second: float
    energy_joules: float | None = None
    untrained: Mapping[str, float] | None = None
    at_chance: bool = False
    taught_by: Mapping[str, Any] | None = None

    @property
    def last(self) -> EpochMetrics:
        return self.curve[-1]

    def is_at_chance(self, num_classes: int, num_images: int) -> bool:
        """Can the top-1 on ``num_images`` validation images not be told from guessing?"""
        return is_at_chance(self.last.validation_top1, num_classes, num_images)

    def fields(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "seed": self.seed,
            "validation_top1": self.last.validation_top1,
            "validation_loss": self.last.validation_loss,
            "train_loss": self.last.train_loss,
            "test_top1": self.test_top1,
            "seconds": round(self.seconds, 3),
            "images_per_second": round(self.images_per_second, 1),
            "energy_joules": None if self.energy_joules is None else round(self.energy_joules, 1),
            "curve": [asdict(metrics) for metrics in self.curve],
            **({} if self.untrained is None else {"untrained": dict(self.untrained)}),
            **({"at_chance": True} if self.at_chance else {}),
            **({} if self.taught_by is None else {"taught_by": dict(self.taught_by)}),
        }

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Self:
        """The inverse of ``fields``."""
        curve = tuple(EpochMetrics(**metrics) for metrics in fields["curve"])
        rest = ("seed", "test_top1", "seconds", "images_per_second", "energy_joules")
        more: dict[str, Any] = {key: fields.get(key) for key in ("untrained", "taught_by")} | {
            "at_chance": fields.get("at_chance", False)
        }
        return cls(curve=curve, **more, **{key: fields[key] for key in rest})


def train_once(
    spec: ArchSpec,
    data: Prepared,
    recipe: Recipe,
    seed: int,
    score_test: bool = False,
    on_epoch: Callable[[EpochMetrics], None] = lambda metrics: None,
    on_end: Callable[[nn.Module], None] = lambda network: None,
    *,
    execution: Execution | None = None,
    teacher: nn.Module | None = None,
    processes: Processes = Processes(),  # noqa: B008 - frozen
    checkpoint: Checkpoint | None = None,
    on_step: Callable[[Training], None] = lambda training: None,
) -> RunResult:
    """Build, train and evaluate one network; everything random comes from ``seed``. ``on_end`` gets the trained network.

    With ``checkpoint`` the training goes on from it, if it is there, and is written to it after every epoch, every
    ``SAVE_SECONDS`` in between, and when ``on_step`` (called after each step) raises ``InterruptedByUser``.

    Raises ``FailedError`` when the training diverges."""
    torch.manual_seed(seed)
    network = build_for_training(spec, recipe)
    training = Training(network, data, recipe, seed, execution, teacher, processes)
    course = _Course(training, checkpoint)
    for metrics in training.steps():
        course.follow(metrics, on_step)
        if metrics is not None:  # told when it is kept
            on_epoch(metrics)
    end = course.progress()
    images = training.num_steps * min(recipe.batch_size, len(data.train[1]))
    on_end(training.result)
    test_top1 = evaluate(training.result, training.data, data.test, processes)[1] if score_test else None
    return RunResult(seed, end.curve, test_top1, end.seconds, images / end.seconds, end.joules)


class _Course:
    """A training with what came of it so far, which its checkpoint keeps where there is one."""

    def __init__(self, training: Training, checkpoint: Checkpoint | None) -> None:
        self._training, self._checkpoint = training, checkpoint
        self._before = checkpoint.restore(training) if checkpoint else Progress()
        self._curve, self._meter = list(self._before.curve), EnergyMeter()
        self._started = self._saved = time.perf_counter()

    def progress(self) -> Progress:
        joules, before = self._meter.read(), self._before
        joules = None if joules is None else joules + (before.joules or 0.0)
        seconds = before.seconds + time.perf_counter() - self._started
        return Progress(self._training.step, tuple(self._curve), seconds, joules)

    def follow(self, metrics: EpochMetrics | None, on_step: Callable[[Training], None]) -> None:
        """After a step: kept with its metrics, from time to time, and when ``on_step`` raises ``InterruptedByUser``."""
        if metrics is not None:
            self._curve.append(metrics)
        try:
            on_step(self._training)
        except InterruptedByUser:
            self._keep()
            raise
        if metrics is not None or time.perf_counter() - self._saved > SAVE_SECONDS:
            self._keep()
            self._saved = time.perf_counter()

    def _keep(self) -> None:
        if self._checkpoint is not None and self._training.processes.leads:
            self._checkpoint.save(self._training, self.progress())
