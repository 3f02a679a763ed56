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

STRIDES = (4, 8, 16, 32)
NUM_COUNTS = 3
NAMES = (
    *("binary MACs", "float MACs", "params", "mean resolution of binary MACs", "mean width of binary convolutions"),
    *(
        "narrowest float 1x1 convolution",
        "kernel of the stem",
        "strongest compression by a float 1x1 convolution",
        "channels of the stem",
    ),
    *(f"share of binary MACs at 1/{stride} of the resolution" for stride in STRIDES),
    "border",
)
UNITS = (0.7, 0.7, 0.7, 0.5, 0.7, 0.7, 1.2, 0.5, 0.7, *(0.2 for _ in STRIDES), 1.0)
"""How far apart two networks have to be in each number to tell little about each other: e-folds of the three counts,
levels of resolution, doublings of the two widths, of the stem's kernel, of the compression and of the stem's channels,
shares, and whether the borders are other ones."""
STEM = NAMES.index("kernel of the stem")
BORDER = ("pad_value", "padding", "stem_pool")
NUM_MODELLED = 7
"""The first so many are what accuracy is modelled with; the others only say how far a network is from what was measured."""


@lru_cache(maxsize=2**14)
def _numbers(spec: ArchSpec) -> tuple[float, ...]:
    return (*_counts(spec), *_shape(spec))


def features(specs: Sequence[ArchSpec]) -> Array:
    """(N, 14), in ``UNITS``: logarithms of binary MACs, float MACs and params; then the shape: the mean level of
    resolution at which binary MACs are done, the mean width of binary convolutions and the narrowest float 1x1
    convolution (both in doublings), the size of the first convolution's kernel (in doublings), how many doublings the
    channels into a float 1x1 convolution are more than those out of it, at most, the first convolution's channels (in
    doublings), the shares of binary MACs on maps of each of ``STRIDES``, and 1 where its border is not that of BMXNet-v2,
    else 0."""
    return np.array([_numbers(spec) for spec in specs]).reshape(-1, len(UNITS)) / UNITS


def _counts(spec: ArchSpec) -> tuple[float, float, float]:
    total = count_spec(spec).total
    return math.log1p(total.binary_macs), math.log1p(total.float_macs), math.log1p(total.params)


def _shape(spec: ArchSpec) -> tuple[float, ...]:
    convolutions = [layer for layer in spec.layers() if layer.kind == "conv"]
    binary = [layer for layer in convolutions if layer.weight_bits == layer.activation_bits == 1]
    work = np.array([layer.macs for layer in binary] or [1], float)
    levels = np.array([math.log2(spec.input_size / layer.out_size) for layer in binary] or [0], float)
    widths = np.array([math.log2(layer.out_channels) for layer in binary] or [0], float)
    pointwise = [layer for layer in convolutions if layer.weight_bits > 1 and layer.kernel == 1]
    narrowest = min((layer.out_channels for layer in pointwise), default=1)
    stem = convolutions[0]
    compression = max((math.log2(layer.in_channels / layer.out_channels) for layer in pointwise), default=0.0)
    shares = (float(work[np.round(levels) == math.log2(stride)].sum() / work.sum()) for stride in STRIDES)
    resolution, width = float(work @ levels / work.sum()), float(work @ widths / work.sum())
    return (
        *(resolution, width, math.log2(narrowest), math.log2(stem.kernel)),
        *(compression, math.log2(stem.out_channels), *shares, _has_other_border(spec)),
    )


def _has_other_border(spec: ArchSpec) -> float:
    """The runs are of BMXNet-v2, whose padding and pooling are the defaults of these fields."""
    keys = [key for key in BORDER if key in type(spec).model_fields]
    return float(any(getattr(spec, key) != type(spec).model_fields[key].default for key in keys))
