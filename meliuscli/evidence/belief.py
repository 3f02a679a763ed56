"""Beliefs about ImageNet top-1: a mean and an interval for a network, or the reason why there is none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import Any

import numpy as np

from meliuscli.arch.spec import ArchSpec
from meliuscli.errors import BadInputError
from meliuscli.evidence.features import NAMES, Array, features
from meliuscli.evidence.model import OTHER_GRIDS, Inputs, TargetModel, beyond
from meliuscli.evidence.runs import TargetRun, target_runs

LEVEL = 0.9
MOST_DEVIATION = 3.0
"""Points. A belief that is less sure is none: the 17 results themselves deviate by 1.9."""
WIDTH = NormalDist().inv_cdf(0.5 + LEVEL / 2)
TARGET = {"input_size": 224, "input_channels": 3, "num_classes": 1000}


@dataclass(frozen=True, slots=True)
class Belief:
    """ImageNet top-1 (percent) that one training by the evidence's recipe is believed to reach: normal, with
    ``deviation`` in points."""

    top1: float
    deviation: float

    @property
    def low(self) -> float:
        """The lower end of the interval of ``LEVEL``."""
        return max(0.0, self.top1 - WIDTH * self.deviation)

    @property
    def high(self) -> float:
        return min(100.0, self.top1 + WIDTH * self.deviation)

    def probability_above(self, top1: float) -> float:
        """How likely it is that a training reaches more than ``top1`` percent."""
        return 1 - NormalDist(self.top1, self.deviation).cdf(top1)

    def __str__(self) -> str:
        return f"{self.top1:.1f} ({self.low:.1f} to {self.high:.1f})"

    def fields(self) -> dict[str, float]:
        """As plain JSON values."""
        return {"top1": self.top1, "low": self.low, "high": self.high, "level": LEVEL}


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What the model says of each run when its whole topology (with both stems) is left out: ``beliefs`` in the order of
    ``target_runs``."""

    runs: tuple[TargetRun, ...]
    beliefs: tuple[Belief, ...]

    @property
    def errors(self) -> Array:
        """Belief minus result (N,), in points."""
        return np.array([belief.top1 - run.top1 for run, belief in zip(self.runs, self.beliefs, strict=True)])

    @property
    def error(self) -> float:
        """Root mean square, in points."""
        return float(np.sqrt((self.errors**2).mean()))

    @property
    def reach(self) -> float:
        """Half the mean width of the intervals, in points."""
        return float(np.mean([(belief.high - belief.low) / 2 for belief in self.beliefs]))

    @property
    def coverage(self) -> float:
        """The part of the results that lie in their intervals (0 to 1)."""
        return float(np.mean([b.low <= run.top1 <= b.high for run, b in zip(self.runs, self.beliefs, strict=True)]))


def families() -> tuple[str, ...]:
    """The families that the evidence covers."""
    return tuple(dict.fromkeys(run.spec.family for run in target_runs()))


def why_uncovered(spec: ArchSpec) -> str | None:
    """Why the evidence says nothing of a network; None where it does."""
    if spec.family not in families():
        return f"the evidence is of {', '.join(families())}, not of {spec.family}"
    for key, value in TARGET.items():
        if getattr(spec, key) != value:
            return f"the evidence is of {key} = {value}, not {getattr(spec, key)}"
    stem, stems = getattr(spec, "stem", None), sorted({run.stem for run in target_runs()})
    if stem not in stems:
        return f"the evidence is of the stems {' and '.join(stems)}, not of {stem}"
    if any(layer.dilation > 1 for layer in spec.layers()):
        return "the evidence is of networks without dilation"
    return None


def believe(specs: Sequence[ArchSpec], names: Sequence[str] = ()) -> list[Belief]:
    """What is believed of networks, which errors call by ``names`` (their short forms, if there are none).

    Raises ``BadInputError`` for one that the evidence does not cover."""
    for spec, name in zip(specs, names or [spec.summary() for spec in specs], strict=True):
        if (reason := why_uncovered(spec)) is not None:
            raise BadInputError(
                f"nothing is known about the ImageNet accuracy of {name}: {reason}",
                f"beliefs rest on {len(target_runs())} runs at 3x224x224, 1000 classes",
            )
    beliefs = as_beliefs(*target_model().predict(inputs_of(specs))) if specs else []
    for spec, name, belief in zip(specs, names or [spec.summary() for spec in specs], beliefs, strict=True):
        if is_far(belief):
            raise BadInputError(
                f"nothing is known about the ImageNet accuracy of {name}: it lies too far from what was measured, in"
                f" {', '.join(outside(spec))}",
                f"beliefs rest on {len(target_runs())} runs of {', '.join(families())}",
            )
    return beliefs


def is_far(belief: Belief) -> bool:
    """Is the network so far from what was measured that nothing should be said of it?"""
    return belief.deviation > MOST_DEVIATION


def outside(spec: ArchSpec) -> tuple[str, ...]:
    """In what a network lies outside the range of the runs of its family with its stem (of all runs, where there are none);
    there an interval is a judgement."""
    (excess,) = beyond(inputs_of([spec]), target_model().inputs)
    return tuple(name for name, much in zip(NAMES, excess.tolist(), strict=True) if much > 1e-9)


def probabilities_above(spec: ArchSpec, top1: float) -> tuple[float, float]:
    """How likely it is that a training of a network reaches more than ``top1`` percent: the least and the most of what
    the model's prior, and others that the runs do not rule out, say."""
    inputs = inputs_of([spec])
    said = [as_beliefs(*model.predict(inputs))[0].probability_above(top1) for model in target_models()]
    return min(said), max(said)


def as_beliefs(mean: Array, deviation: Array) -> list[Belief]:
    return [Belief(float(m), float(d)) for m, d in zip(mean, deviation, strict=True)]


def inputs_of(specs: Sequence[ArchSpec], scores: Array | None = None) -> Inputs:
    """The model's inputs for networks of covered families."""
    one_hot = np.array([[float(spec.family == family) for family in families()] for spec in specs])
    return Inputs(features(specs), one_hot, np.zeros(len(specs)) if scores is None else scores)


def results() -> Array:
    """The runs' top-1 (N,), in percent."""
    return np.array([run.top1 for run in target_runs()])


@cache
def target_model() -> TargetModel:
    """The model of all runs."""
    return TargetModel.fit(inputs_of([run.spec for run in target_runs()]), results())


@cache
def target_models() -> tuple[TargetModel, ...]:
    """``target_model``, and those of other priors."""
    inputs = target_model().inputs
    return (target_model(), *(TargetModel.fit(inputs, results(), grid) for grid in OTHER_GRIDS))


@cache
def left_out() -> LeftOut:
    """Each topology predicted from all others, with everything that is fitted fitted anew."""
    return leave_topologies_out(inputs_of([run.spec for run in target_runs()]))


def leave_topologies_out(inputs: Inputs, **options: Any) -> LeftOut:
    """As ``left_out``, for other inputs of the same runs (a proxy's scores among them)."""
    runs = target_runs()
    beliefs: list[Belief | None] = [None] * len(runs)
    for arch in dict.fromkeys(run.arch for run in runs):
        held = np.array([run.arch == arch for run in runs])
        model = TargetModel.fit(inputs[~held], results()[~held], **options)
        for row, belief in zip(np.flatnonzero(held), as_beliefs(*model.predict(inputs[held])), strict=True):
            beliefs[row] = belief
    return LeftOut(runs, tuple(belief for belief in beliefs if belief is not None))


def known_result(spec: ArchSpec) -> float | None:
    """What exactly this network reached on ImageNet, in percent, where it is in the evidence."""
    return next((run.top1 for run in target_runs() if run.spec.archid == spec.archid), None)


def sentence() -> str:
    """How far beliefs can be trusted, in a line."""
    checked = left_out()
    return (
        f"believed top-1: one training on ImageNet by the recipe of MeliusNet's authors, with the {100 * LEVEL:g} % interval;"
        f" leave-one-topology-out error {checked.error:.1f} points on {len(checked.runs)} runs, of which"
        f" {math.floor(100 * checked.coverage + 0.5)} % lie in the intervals that they then have, {checked.reach:.1f} points to"
        " either side on average"
    )
