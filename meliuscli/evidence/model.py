"""A model of accuracy at the target: Bayesian linear regression on what is known for nothing, with doubts that grow.

A Gaussian process whose kernel is a sum: linear in the logarithms of the counts, in the shape and in the family; their
squares with a small prior, so that a trend is not trusted far beyond what was measured; and a smooth rest that says how
alike two networks are. Outside the range of what was measured in the network's family doubt is added. What the kernel's
sizes are is averaged over, weighted by the marginal likelihood. Numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import NamedTuple, Self

import numpy as np

from meliuscli.evidence.features import NUM_COUNTS, NUM_MODELLED, STEM, UNITS, Array

NOISE = 0.3
"""Standard deviation, in points, of a training on ImageNet around what its network can do: assumed, since the authors
trained from one seed; between the last and the best epoch of a run lie up to 0.3 points."""
MEAN_DEVIATION = 5.0
OUTSIDE = 1.5
"""Points of doubt for each unit that a number lies outside the range of what was measured in the network's family: a
judgement, since nothing was measured there. Five networks of earlier searches, 2 to 3.5 units outside, were believed
2 to 6 points better than they did on CIFAR-10 beside the published ones (``reports/transfer-cifar10``)."""


class Sizes(NamedTuple):
    """Prior standard deviations in points: of a slope an e-fold, of a family, of the smooth rest, of a point of a proxy's
    residual score (in its own standard deviations), of a slope in a shape, and of the counts' squares."""

    slope: float
    family: float
    rest: float
    score: float = 0.0
    shape: float = 0.6
    curvature: float = 0.3


GRID = tuple(Sizes(*sizes) for sizes in product((2.0, 4.0), (1.0, 2.0), (0.5, 0.8, 1.2)))
OTHER_GRIDS = (
    tuple(sizes._replace(rest=2.0) for sizes in GRID),
    tuple(sizes._replace(shape=0.0) for sizes in GRID),
    tuple(sizes._replace(curvature=1.0) for sizes in GRID),
)
"""Priors that the runs do not rule out: a rest that is far less smooth, no slopes in the shape, stronger curvature."""
SCORED_GRID = tuple(sizes._replace(score=score) for sizes in GRID for score in (0.0, 0.3, 0.6))


@dataclass(frozen=True, slots=True)
class Inputs:
    """``features`` (N, 14) of ``meliuscli.evidence.features``, ``families`` (N, F) one-hot, and ``scores`` (N,): what a
    proxy says beyond the free numbers, in standard deviations; 0 where nothing was trained."""

    features: Array
    families: Array
    scores: Array

    def __getitem__(self, rows: Array) -> Inputs:
        return Inputs(self.features[rows], self.families[rows], self.scores[rows])


@dataclass(frozen=True, slots=True)
class TargetModel:
    """A fitted model; ``weights`` (S,) are those of the sizes in ``grid``."""

    inputs: Inputs
    top1: Array
    grid: tuple[Sizes, ...]
    weights: Array
    inverses: Array

    @classmethod
    def fit(cls, inputs: Inputs, top1: Array, grid: tuple[Sizes, ...] = GRID) -> Self:
        """Fit to ``top1`` (N,) in percent."""
        centred = top1 - top1.mean()
        inverses, logs = [], []
        for sizes in grid:
            covariance = _kernel(inputs, inputs, inputs, sizes) + NOISE**2 * np.eye(len(top1))
            inverse = np.linalg.inv(covariance)
            inverses.append(inverse)
            logs.append(-0.5 * (centred @ inverse @ centred + np.linalg.slogdet(covariance)[1]))
        weights = np.exp(np.array(logs) - max(logs))
        return cls(inputs, top1, grid, weights / weights.sum(), np.array(inverses))

    def predict(self, inputs: Inputs) -> tuple[Array, Array]:
        """Mean and standard deviation (N,), in points, of what one training of each network reaches."""
        centred, mean = self.top1 - self.top1.mean(), float(self.top1.mean())
        means, seconds = np.zeros(len(inputs.scores)), np.zeros(len(inputs.scores))
        for sizes, weight, inverse in zip(self.grid, self.weights, self.inverses, strict=True):
            across = _kernel(inputs, self.inputs, self.inputs, sizes)
            value = mean + across @ inverse @ centred
            variance = _diagonal(inputs, self.inputs, sizes) - np.einsum("ij,jk,ik->i", across, inverse, across)
            means += weight * value
            seconds += weight * (np.maximum(variance, 0) + NOISE**2 + value**2)
        outside = (beyond(inputs, self.inputs) ** 2).sum(1)
        return means, np.sqrt(seconds - means**2 + OUTSIDE**2 * outside)

    @property
    def score_weight(self) -> float:
        """What a standard deviation of the proxy's residual score is worth, in points."""
        step = self.inputs[np.array([0])]
        more = Inputs(step.features, step.families, step.scores + 1.0)
        return float(self.predict(more)[0][0] - self.predict(step)[0][0])


def beyond(inputs: Inputs, measured: Inputs) -> Array:
    """How far each number (N, F) lies outside the range of the ``measured`` networks of its family and stem, or of all of
    them where there is none; 0 within."""
    excess = np.zeros_like(inputs.features)
    for row, (numbers, family) in enumerate(zip(inputs.features, inputs.families, strict=True)):
        alike = (measured.families == family).all(1) & (measured.features[:, STEM] == numbers[STEM])
        known = measured.features[alike] if alike.any() else measured.features
        excess[row] = np.maximum(numbers - known.max(0), 0) + np.maximum(known.min(0) - numbers, 0)
    return excess


def _parts(inputs: Inputs, seen: Inputs) -> tuple[Array, Array]:
    """Counts in e-folds, and shapes in their units, around the middle of what was measured."""
    centred = inputs.features - seen.features.mean(0)
    return centred[:, :NUM_COUNTS] * UNITS[:NUM_COUNTS], centred[:, NUM_COUNTS:NUM_MODELLED]


def _kernel(a: Inputs, b: Inputs, seen: Inputs, sizes: Sizes) -> Array:
    (counts_a, shapes_a), (counts_b, shapes_b) = _parts(a, seen), _parts(b, seen)
    distances = ((a.features[:, None] - b.features[None])[..., :NUM_MODELLED] ** 2).sum(-1)
    linear = counts_a @ counts_b.T
    return np.asarray(
        MEAN_DEVIATION**2
        + sizes.slope**2 * linear
        + sizes.curvature**2 * linear**2
        + sizes.shape**2 * (shapes_a @ shapes_b.T)
        + sizes.family**2 * (a.families @ b.families.T)
        + sizes.rest**2 * np.exp(-0.5 * distances)
        + sizes.score**2 * np.outer(a.scores, b.scores)
    )


def _diagonal(inputs: Inputs, seen: Inputs, sizes: Sizes) -> Array:
    """The diagonal of ``_kernel(inputs, inputs)``."""
    counts, shapes = _parts(inputs, seen)
    squares = (counts**2).sum(1)
    return np.asarray(
        MEAN_DEVIATION**2
        + sizes.slope**2 * squares
        + sizes.curvature**2 * squares**2
        + sizes.shape**2 * (shapes**2).sum(1)
        + sizes.family**2 * (inputs.families**2).sum(1)
        + sizes.rest**2
        + sizes.score**2 * inputs.scores**2
    )
