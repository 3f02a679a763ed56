"""Exact statistics of images of bytes, from histograms, which add up over parts of a data set. No torch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from meliuscli.data.idx import Bytes

Histogram = npt.NDArray[np.int64]
"""(C, 256): how often each channel has each value."""
_ROWS = 1024


def channel_histogram(images: Bytes) -> Histogram:
    """Of images (N, C, H, W); a memory-mapped file of any size is read piece by piece."""
    counts = np.zeros((images.shape[1], 256), np.int64)
    for start in range(0, len(images), _ROWS):
        for channel, own in enumerate(counts):
            own += np.bincount(images[start : start + _ROWS, channel].ravel(), minlength=256)
    return counts


def mean_and_std(counts: Histogram) -> tuple[list[float], list[float]]:
    """Mean and sample standard deviation of each channel, of values in [0, 1]."""
    means, deviations = [], []
    for own in counts.tolist():
        total = sum(own)
        first = sum(value * count for value, count in enumerate(own))
        second = sum(value * value * count for value, count in enumerate(own))
        means.append(first / total / 255)
        # Python's integers are exact, whatever their size.
        deviations.append(((second * total - first * first) / total / max(1, total - 1)) ** 0.5 / 255)
    return means, deviations
