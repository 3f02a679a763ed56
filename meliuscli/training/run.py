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
from meliuscli.training.chance import chance_limit
from meliuscli.training.checkpoint import Checkpoint, Progress
from meliuscli.training.energy import EnergyMeter
from meliuscli.training.execution import Execution
from meliuscli.training.loop import EpochMetrics, Training, evaluate
from meliuscli.training.network import build_for_training
from meliuscli.training.processes import Processes
from meliuscli.training.recipe import Recipe

SAVE_SECONDS = 180.0
"""A long epoch is written down this often."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """What one training gave. ``test_top1`` is None unless the run was asked to score the test split, once, at the
    end. ``seconds`` is wall time of the training, validation included, and ``energy_joules`` what the machine's
    processors took in it, where it can be read. ``untrained`` holds scores of the network before its first step;
    ``at_chance`` is said by whoever judges a training by its validation."""

    seed: int
    curve: tuple[EpochMetrics, ...]
    test_top1: float | None
    seconds: float
    images_per_second: float
    energy_joules: float | None = None
    untrained: Mapping[str, float] | None = None
    at_chance: bool = False

    @property
    def last(self) -> EpochMetrics:
        return self.curve[-1]

    def is_at_chance(self, num_classes: int, num_images: int) -> bool:
        """Is the top-1 on ``num_images`` validation images no better than guessing, by three standard deviations?"""
        return self.last.validation_top1 <= chance_limit(num_classes, num_images)

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
        }

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Self:
        """The inverse of ``fields``."""
        curve = tuple(EpochMetrics(**metrics) for metrics in fields["curve"])
        rest = ("seed", "test_top1", "seconds", "images_per_second", "energy_joules")
        more = {"untrained": fields.get("untrained"), "at_chance": fields.get("at_chance", False)}
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
    before = checkpoint.restore(training) if checkpoint else Progress()
    curve, started, meter = list(before.curve), time.perf_counter(), EnergyMeter()

    def progress() -> Progress:
        joules = meter.read()
        joules = None if joules is None else joules + (before.joules or 0.0)
        return Progress(training.step, tuple(curve), before.seconds + time.perf_counter() - started, joules)

    def keep() -> None:
        if checkpoint is not None and processes.leads:
            checkpoint.save(training, progress())

    saved = started
    for metrics in training.steps():
        if metrics is not None:
            curve.append(metrics)
        try:
            on_step(training)
        except InterruptedByUser:
            keep()
            raise
        if checkpoint is not None and (metrics is not None or time.perf_counter() - saved > SAVE_SECONDS):
            keep()
            saved = time.perf_counter()
        if metrics is not None:  # told when it is kept
            on_epoch(metrics)
    end = progress()
    images = training.num_steps * min(recipe.batch_size, len(data.train[1]))
    on_end(training.result)
    test_top1 = evaluate(training.result, training.data, data.test, processes)[1] if score_test else None
    return RunResult(seed, end.curve, test_top1, end.seconds, images / end.seconds, end.joules)
