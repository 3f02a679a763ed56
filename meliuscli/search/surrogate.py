"""What the search believes about accuracy: Bayesian ridge regression on a candidate's parameters and known costs.

Costs are exact and free, so only accuracy is modelled, and the costs are inputs of the model. Numpy only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from meliuscli.search.space import Candidate, SearchSpace

Array = npt.NDArray[np.float64]
_NOISE_TO_SIGNAL = np.logspace(-2, 3, 26)


def features(space: SearchSpace, candidates: Sequence[Candidate]) -> Array:
    """(N, F): each parameter's place in its range and its square, and the logarithms of five exact costs."""
    places = np.array(
        [
            [
                axis.values.index(value) / max(1, len(axis.values) - 1)
                for axis, value in zip(space.axes.values(), c.params, strict=True)
            ]
            for c in candidates
        ]
    )
    costs = np.log1p(
        [[c.ops, c.count.binary_macs, c.count.float_macs, c.count.params, c.count.size_bytes] for c in candidates]
    )
    return np.hstack([places, places**2, costs])


@dataclass(frozen=True, slots=True)
class Surrogate:
    """A fitted model of accuracy."""

    centre: Array
    scale: Array
    inputs: Array
    weights: Array
    inverse: Array
    mean: float
    variance: float

    def predict(self, x: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of the true accuracy at features (N, F)."""
        z = (x - self.centre) / self.scale
        kernel = z @ self.inputs.T
        variance = (z**2).sum(1) - np.einsum("ij,jk,ik->i", kernel, self.inverse, kernel)
        return self.mean + kernel @ self.weights, np.sqrt(np.maximum(variance, 0) * self.variance)


def fit(x: Array, accuracy: Array) -> Surrogate:
    """Fit features (N, F) to observed accuracies (N,), the noise chosen by the marginal likelihood."""
    centre, scale = x.mean(0), x.std(0)
    scale[scale < 1e-12] = np.inf  # a feature that does not vary says nothing
    inputs = (x - centre) / scale / math.sqrt(x.shape[1])
    scale = scale * math.sqrt(x.shape[1])
    mean = float(accuracy.mean())
    y, gram, count = accuracy - mean, inputs @ inputs.T, len(accuracy)
    eigenvalues, vectors = np.linalg.eigh(gram)
    rotated = vectors.T @ y
    best = (-np.inf, 1.0, 1.0)
    for ratio in _NOISE_TO_SIGNAL:
        spread = np.maximum(eigenvalues, 0) + ratio
        variance = max(float((rotated**2 / spread).mean()), 1e-12)
        likelihood = -0.5 * (count * math.log(variance) + float(np.log(spread).sum()))
        best = max(best, (likelihood, float(ratio), variance))
    _, ratio, variance = best
    inverse = (vectors / (np.maximum(eigenvalues, 0) + ratio)) @ vectors.T
    return Surrogate(centre, scale, inputs, inverse @ y, inverse, mean, variance)
