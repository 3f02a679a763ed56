"""Estimates of what is exact but slow: costs and beliefs of candidates that were not counted, from those that were.

Counting a network takes milliseconds, so of thousands that could be proposed only those that look best are counted.
Numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from meliuscli.search.axis import Axis
from meliuscli.search.ridge import Array
from meliuscli.search.space import Params, SearchSpace

Places = npt.NDArray[np.intp]
"""(N, A): for each parameter of a space, the index of its value."""
RIDGE = 1e-3


@dataclass(frozen=True, slots=True)
class Screen:
    """A quadratic in the parameters for each of several numbers, ``weights`` (Q, K)."""

    scale: Array
    weights: Array

    @classmethod
    def fit(cls, places: Places, numbers: Array, space: SearchSpace) -> Self:
        """Fit to ``numbers`` (N, K) of counted candidates."""
        scale = np.array([max(1, len(axis.values) - 1) for axis in space.axes.values()], dtype=np.float64)
        x = _quadratic(places / scale)
        gram = x.T @ x + RIDGE * np.eye(x.shape[1])
        return cls(scale, np.asarray(np.linalg.solve(gram, x.T @ numbers), np.float64))

    def estimate(self, places: Places) -> Array:
        """(N, K) for other candidates."""
        return np.asarray(_quadratic(places / self.scale) @ self.weights)


def _quadratic(x: Array) -> Array:
    rows, columns = np.triu_indices(x.shape[1])
    return np.hstack([np.ones((len(x), 1)), x, x[:, rows] * x[:, columns]])


def places_of(space: SearchSpace, params: Params) -> tuple[int, ...]:
    return tuple(axis.values.index(value) for axis, value in zip(space.axes.values(), params, strict=True))


def params_at(space: SearchSpace, places: npt.NDArray[np.intp]) -> Params:
    return tuple(axis.values[place] for axis, place in zip(space.axes.values(), places.tolist(), strict=True))


def random_places(axes: list[Axis], count: int, rng: np.random.Generator) -> Places:
    return np.stack([rng.integers(len(axis.values), size=count) for axis in axes], axis=1)


def stepped(places: Places, axes: list[Axis], rng: np.random.Generator) -> Places:
    """One to three parameters of each row moved: a number by one or two of its steps, a word to any other."""
    most = np.array([len(axis.values) - 1 for axis in axes])
    words = np.array([axis.is_words for axis in axes])
    order = rng.random(places.shape).argsort(axis=1).argsort(axis=1)
    moves = order < rng.integers(1, 4, size=(len(places), 1))
    steps = rng.choice((-2, -1, 1, 2), size=places.shape)
    moved = np.where(words, rng.integers(0, most + 1, size=places.shape), np.clip(places + steps, 0, most))
    return np.where(moves, moved, places)
