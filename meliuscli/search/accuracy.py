"""What the search believes about accuracy: a Gaussian process on a candidate's parameters and known costs. Numpy only.

Costs are exact and free, so only accuracy is modelled, and the costs are inputs of the model. The kernel is a sum: linear
in the logarithms of costs, linear and quadratic in each parameter, and a smooth rest. How large these parts and the noise
are is averaged over a fixed set of sizes, weighted by the marginal likelihood.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from meliuscli.search.ridge import Array
from meliuscli.search.space import Candidate, SearchSpace

NUM_COSTS = 5
"""The last columns of ``features``."""
NUM_PARTS = 3
LEAST, MOST = (0.1, 0.02, 0.02, 0.02), (5.0, 3.0, 3.0, 0.8)
"""Between these the sizes lie: variances of what costs and parameters explain, of the rest, and of the noise, in parts of
the accuracies' variance."""
MOST_OBSERVED = 200
"""Of observations that a model is fitted to: fitting costs the third power of their number, seconds for a thousand."""
NUM_SIZES = 64
KEPT = 0.03
"""Sizes whose weight is below this part of the largest are left out."""


def thinned(count: int) -> npt.NDArray[np.intp]:
    """The places of at most ``MOST_OBSERVED`` of ``count`` observations in order: the newest half, which a search made where
    it looks, and of those before them evenly many. Order chooses, never accuracy: the best of many is best by luck, too."""
    if count <= MOST_OBSERVED:
        return np.arange(count)
    newest = MOST_OBSERVED // 2
    earlier = np.linspace(0, count - newest - 1, MOST_OBSERVED - newest).round().astype(np.intp)
    return np.concatenate([earlier, np.arange(count - newest, count)])


def features(space: SearchSpace, candidates: Sequence[Candidate]) -> Array:
    """(N, F): each parameter's place in its range (0 to 1), and the logarithms of five exact costs."""
    rows = [(*places(space, c), *_logs(c)) for c in candidates]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(space.axes) + NUM_COSTS)


def places(space: SearchSpace, candidate: Candidate) -> tuple[float, ...]:
    """Each parameter's place in its range, 0 to 1."""
    pairs = zip(space.axes.values(), candidate.params, strict=True)
    return tuple(axis.values.index(value) / max(1, len(axis.values) - 1) for axis, value in pairs)


def _logs(c: Candidate) -> tuple[float, ...]:
    count = c.count
    return tuple(map(math.log1p, (c.ops, count.binary_macs, count.float_macs, count.params, count.size_bytes)))


def _sizes() -> Array:
    """(S, 4): spread over all that is reasonable, and always the same."""
    rng = np.random.default_rng(7)
    return np.asarray(np.exp(rng.uniform(np.log(LEAST), np.log(MOST), (NUM_SIZES, NUM_PARTS + 1))))


SIZES = _sizes()


@dataclass(frozen=True, slots=True)
class AccuracyModel:
    """A fitted model: ``x`` (N, F) are the scaled inputs of what was observed; for each of ``sizes`` (S, 4) there are a
    share, ``weights`` (S, N) and an inverse (S, N, N)."""

    centre: Array
    scale: Array
    x: Array
    sizes: Array
    shares: Array
    weights: Array
    inverses: Array
    mean: float
    deviation: float

    @classmethod
    def fit(cls, inputs: Array, accuracy: Array) -> Self:
        """Fit ``features`` (N, F) to observed accuracies (N,)."""
        centre, scale = inputs.mean(0), inputs.std(0)
        scale[scale < 1e-12] = np.inf  # an input that does not vary says nothing
        x = (inputs - centre) / scale
        mean, deviation = float(accuracy.mean()), max(float(accuracy.std()), 1e-9)
        y = (accuracy - mean) / deviation
        parts = _parts(x, x)
        covariances = _mixed(parts, SIZES) + SIZES[:, -1:, None] * np.eye(len(y))
        shares = _shares(covariances, y)
        kept = np.flatnonzero(shares > KEPT * shares.max())
        inverses = np.asarray(np.linalg.inv(covariances[kept]), np.float64)
        shares = shares[kept] / shares[kept].sum()
        return cls(centre, scale, x, SIZES[kept], shares, inverses @ y, inverses, mean, deviation)

    @property
    def noise(self) -> float:
        """Standard deviation of what a training adds by luck."""
        return self.deviation * math.sqrt(self.shares @ self.sizes[:, -1])

    def predict(self, inputs: Array) -> tuple[Array, Array]:
        """Mean and standard deviation (M,) of the true accuracy at ``features`` (M, F)."""
        x = (inputs - self.centre) / self.scale
        parts, own = _parts(x, self.x), _own(x)
        mean, second = np.zeros(len(x)), np.zeros(len(x))
        for sizes, share, weights, inverse in zip(self.sizes, self.shares, self.weights, self.inverses, strict=True):
            across = np.tensordot(sizes[:NUM_PARTS], parts, 1)
            value = across @ weights
            variance = sizes[:NUM_PARTS] @ own - ((across @ inverse) * across).sum(1)
            mean += share * value
            second += share * (np.maximum(variance, 0) + value**2)
        return self.mean + self.deviation * mean, self.deviation * np.sqrt(np.maximum(second - mean**2, 0))


def _shares(covariances: Array, y: Array) -> Array:
    """(S,): the marginal likelihoods of ``y`` (N,), the largest 1."""
    factors = np.linalg.cholesky(covariances)
    halves = np.linalg.solve(factors, np.broadcast_to(y[:, None], (len(factors), len(y), 1)))[..., 0]
    logs = -0.5 * (halves**2).sum(1) - np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(1)
    return np.asarray(np.exp(logs - logs.max()))


def _mixed(parts: Array, sizes: Array) -> Array:
    return np.tensordot(sizes[:, :NUM_PARTS], parts, 1)


def _parts(a: Array, b: Array) -> Array:
    """(3, N, M): the kernel's parts between (N, F) and (M, F), each of size 1 at a typical candidate."""
    distances = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    rest = np.exp(-0.5 * np.maximum(distances, 0) / a.shape[1])
    return np.array([a[:, -NUM_COSTS:] @ b[:, -NUM_COSTS:].T / NUM_COSTS, _effects(a) @ _effects(b).T, rest])


def _own(x: Array) -> Array:
    """(3, N): the kernel's parts between each candidate and itself."""
    return np.array([(x[:, -NUM_COSTS:] ** 2).mean(1), (_effects(x) ** 2).sum(1), np.ones(len(x))])


def _effects(x: Array) -> Array:
    """Each parameter and its square."""
    alone = x[:, :-NUM_COSTS]
    return np.asarray(np.hstack([alone, (alone**2 - 1) / math.sqrt(2)]) / math.sqrt(2 * alone.shape[1]))
