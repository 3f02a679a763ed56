"""Bayesian ridge regression, with which the free numbers are taken out of a score. Numpy only."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
_NOISE_TO_SIGNAL = np.logspace(-2, 3, 26)


@dataclass(frozen=True, slots=True)
class Ridge:
    """A fitted regression."""

    centre: Array
    scale: Array
    inputs: Array
    weights: Array
    inverse: Array
    mean: float
    variance: float

    def predict(self, x: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of the true value at features (N, F)."""
        z = (x - self.centre) / self.scale
        kernel = z @ self.inputs.T
        variance = (z**2).sum(1) - np.einsum("ij,jk,ik->i", kernel, self.inverse, kernel)
        return self.mean + kernel @ self.weights, np.sqrt(np.maximum(variance, 0) * self.variance)


def fit(x: Array, values: Array) -> Ridge:
    """Fit features (N, F) to observed values (N,), the noise chosen by the marginal likelihood."""
    centre, scale = x.mean(0), x.std(0)
    scale[scale < 1e-12] = np.inf  # a feature that does not vary says nothing
    inputs = (x - centre) / scale / math.sqrt(x.shape[1])
    scale = scale * math.sqrt(x.shape[1])
    mean = float(values.mean())
    y, gram, count = values - mean, inputs @ inputs.T, len(values)
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
    return Ridge(centre, scale, inputs, inverse @ y, inverse, mean, variance)
