"""What is known of a network without training it, as numbers that a model of accuracy can use. Numpy only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from meliuscli.arch.spec import ArchSpec
from meliuscli.counting.analytic import count_spec

Array = npt.NDArray[np.float64]

NUM_COUNTS = 3
NAMES = (
    *("binary MACs", "float MACs", "params", "mean resolution of binary MACs", "mean width of binary convolutions"),
    *(
        "narrowest float 1x1 convolution",
        "stem's share of float MACs",
        "strongest compression by a float 1x1 convolution",
    ),
)
UNITS = (0.7, 0.7, 0.7, 0.5, 0.7, 0.7, 0.35, 0.5)
"""How far apart two networks have to be in each number to tell little about each other: e-folds of the three counts,
levels of resolution, doublings of the two widths, a share, and doublings."""
NUM_MODELLED = 7
"""The first so many are what accuracy is modelled with; the last only says how far a network is from what was measured."""


@lru_cache(maxsize=2**14)
def _numbers(spec: ArchSpec) -> tuple[float, ...]:
    return (*_counts(spec), *_shape(spec))


def features(specs: Sequence[ArchSpec]) -> Array:
    """(N, 8), in ``UNITS``: logarithms of binary MACs, float MACs and params; then the shape: the mean level of
    resolution at which binary MACs are done, the mean width of binary convolutions and the narrowest float 1x1
    convolution (both in doublings), the stem's share of the float MACs of convolutions, and how many doublings the channels
    into a float 1x1 convolution are more than those out of it, at most."""
    return np.array([_numbers(spec) for spec in specs]).reshape(-1, len(UNITS)) / UNITS


def _counts(spec: ArchSpec) -> tuple[float, float, float]:
    total = count_spec(spec).total
    return math.log1p(total.binary_macs), math.log1p(total.float_macs), math.log1p(total.params)


def _shape(spec: ArchSpec) -> tuple[float, float, float, float, float]:
    convolutions = [layer for layer in spec.layers() if layer.kind == "conv"]
    binary = [layer for layer in convolutions if layer.weight_bits == layer.activation_bits == 1]
    others = [layer for layer in convolutions if layer.weight_bits > 1]
    work = np.array([layer.macs for layer in binary] or [1], float)
    levels = np.array([math.log2(spec.input_size / layer.out_size) for layer in binary] or [0], float)
    widths = np.array([math.log2(layer.out_channels) for layer in binary] or [0], float)
    pointwise = [layer for layer in others if layer.kernel == 1]
    narrowest = min((layer.out_channels for layer in pointwise), default=1)
    stem = sum(layer.macs for layer in others if layer.kernel > 1) / max(1, sum(layer.macs for layer in others))
    compression = max((math.log2(layer.in_channels / layer.out_channels) for layer in pointwise), default=0.0)
    return float(work @ levels / work.sum()), float(work @ widths / work.sum()), math.log2(narrowest), stem, compression
