"""Tensors of somebody else's file, taken one by one into a network of ours: what is missing, left over or of another shape
is collected, and said together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from meliuscli.arch.spec import ArchSpec
from meliuscli.data.preprocessing import Preprocessing
from meliuscli.errors import BadInputError

Array = NDArray[Any]
OUR_EPS = 1e-5
"""Of every batch norm of ours: torch's default."""
SHOWN = 6
"""So many tensors a message names."""


@dataclass(frozen=True, slots=True)
class Imported:
    """A network that a file holds: its spec, the tensors of ``build(spec)``, what its images go through where the source
    says so, and ``notes`` on what was decided for the user to read."""

    spec: ArchSpec
    tensors: dict[str, Tensor]
    preprocessing: Preprocessing | None = None
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class Taker:
    """The tensors of ``path`` by name, each of which is taken once; ``state`` grows into a network's."""

    path: object
    tensors: Mapping[str, Array]
    state: dict[str, Tensor] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)

    def take(self, name: str, shape: tuple[int, ...]) -> Array:
        """A tensor as float64. One that is missing, of another shape or not finite is a problem, told by ``finish``."""
        self.taken.add(name)
        found = self.tensors.get(name)
        if found is None:
            self.problems.append(f"{name} is missing")
        elif tuple(found.shape) != shape:
            self.problems.append(f"{name} is {_shape(found.shape)}, and the network needs {_shape(shape)}")
        elif found.dtype.kind not in "fiu" or not np.isfinite(found).all():
            self.problems.append(f"{name} has values that are no finite numbers")
        else:
            return found.astype(np.float64)
        return np.ones(shape)

    def put(self, name: str, values: Array) -> None:
        """A parameter or buffer of our network."""
        self.state[name] = torch.from_numpy(np.ascontiguousarray(values, np.float32))

    def copy(self, name: str, ours: str, shape: tuple[int, ...]) -> None:
        """A tensor as it is."""
        self.put(ours, self.take(name, shape))

    def norm(
        self,
        ours: str,
        parts: Mapping[str, str],
        channels: int,
        eps: float,
        *,
        factor: float = 1.0,
        offset: float = 0.0,
    ) -> None:
        """A batch norm whose source saw ``factor * (x + offset)`` where ours sees x. ``parts`` are the names of its
        ``mean`` and ``var``, and of ``gamma`` and ``beta`` where it has them (else 1 and 0).

        The source's epsilon goes into our variance; where that would be below zero, into our scale."""
        values = {key: self.take(parts[key], (channels,)) for key in ("gamma", "beta", "mean", "var") if key in parts}
        gamma, beta = values.get("gamma", np.ones(channels)), values.get("beta", np.zeros(channels))
        if (values["var"] < 0).any():
            self.problems.append(f"{parts['var']} has variances below zero")
        spread = (np.maximum(values["var"], 0) + eps) / factor**2
        variance = np.maximum(spread - OUR_EPS, 0)
        self.put(f"{ours}.weight", gamma * np.sqrt((variance + OUR_EPS) / np.maximum(spread, 1e-300)))
        self.put(f"{ours}.bias", beta)
        self.put(f"{ours}.running_mean", values["mean"] / factor - offset)
        self.put(f"{ours}.running_var", variance)
        self.zero_counter(ours)

    def norm_of_torch(self, theirs: str, ours: str, channels: int, eps: float) -> None:
        """A batch norm of torch's, by its name."""
        names = {"gamma": "weight", "beta": "bias", "mean": "running_mean", "var": "running_var"}
        self.norm(ours, {key: f"{theirs}.{name}" for key, name in names.items()}, channels, eps)

    def zero_counter(self, ours: str) -> None:
        """The number of batches that a batch norm has seen, which nothing reads."""
        self.state[f"{ours}.num_batches_tracked"] = torch.tensor(0)

    def finish(self, ignored: tuple[str, ...] = ()) -> dict[str, Tensor]:
        """The state of our network. Raises ``BadInputError`` that names what did not fit or was left over; ``ignored`` are
        tensors that the source stores and does not compute with."""
        left = sorted(set(self.tensors) - self.taken - set(ignored))
        problems = [*self.problems, *(f"{name} {_shape(self.tensors[name].shape)} is left over" for name in left)]
        if problems:
            more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
            raise BadInputError(
                f"{self.path}: does not fit the network: {'; '.join(problems[:SHOWN])}{more}",
                "--arch names another network",
            )
        return self.state


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a number"


def signs_of(words: Array, shape: tuple[int, ...]) -> Array:
    """Bits of 64-bit words, the lowest first, as -1 and +1 of a shape."""
    bits = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), bitorder="little")
    return bits.reshape(shape).astype(np.float64) * 2 - 1
