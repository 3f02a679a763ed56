"""One training from a seed to its result, and the summary of several."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from meliuscli.arch.spec import ArchSpec
from meliuscli.data.batches import Prepared
from meliuscli.nn.build import build
from meliuscli.training.chance import chance_limit
from meliuscli.training.loop import EpochMetrics, evaluate, fit
from meliuscli.training.recipe import Recipe


@dataclass(frozen=True, slots=True)
class RunResult:
    """What one training gave. ``test_top1`` is None unless the run was asked to score the test split, once, at the
    end. ``seconds`` is wall time of the training, validation included."""

    seed: int
    curve: tuple[EpochMetrics, ...]
    test_top1: float | None
    seconds: float
    images_per_second: float

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
            "curve": [asdict(metrics) for metrics in self.curve],
        }


def train_once(
    spec: ArchSpec,
    data: Prepared,
    recipe: Recipe,
    seed: int,
    score_test: bool = False,
    on_epoch: Callable[[EpochMetrics], None] = lambda metrics: None,
    on_end: Callable[[nn.Module], None] = lambda network: None,
) -> RunResult:
    """Build, train and evaluate one network; everything random comes from ``seed``. ``on_end`` gets the trained network.

    Raises ``FailedError`` when the training diverges."""
    torch.manual_seed(seed)
    network = build(spec, recipe.clip_threshold)
    started = time.perf_counter()
    curve = []
    for metrics in fit(network, data, recipe, seed):
        curve.append(metrics)
        on_epoch(metrics)
    seconds = time.perf_counter() - started
    images = recipe.num_steps(len(data.train[1])) * min(recipe.batch_size, len(data.train[1]))
    on_end(network)
    test_top1 = evaluate(network, data, data.test)[1] if score_test else None
    return RunResult(seed, tuple(curve), test_top1, seconds, images / seconds)


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation; no spread from a single value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None
