"""Stem and head in 8 bits: weights symmetric, a scale a filter; images, what lies between a stem's layers, and what the head sees
with one scale each (what leaves the stem with one a channel), by the largest value that calibration images give. Zero is zero,
so borders stay what they were."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from meliuscli.export.c.chain import Affine, HeadStep, StemStep
from meliuscli.packed.program import Array

MOST = 127


@dataclass(frozen=True, slots=True)
class Ends:
    """A network's stem and head in int8."""

    stem: StemStep
    head: HeadStep


def int8_stem(stem: StemStep, images: Array) -> StemStep:
    """A float stem in int8, calibrated on (N, channels, rows, columns) normalised images."""
    x = torch.from_numpy(images)
    channels = images.shape[1]
    scale, shift = stem.before or (np.ones(channels, np.float32), np.zeros(channels, np.float32))
    x = x * _column(scale) + _column(shift)
    step: Array = _step(x.numpy())
    before = _affine(scale / step, shift / step)
    convs = []
    for conv in stem.convs:
        filters, bias, border = (
            torch.from_numpy(conv.weight),
            torch.from_numpy(conv.bias),
            conv.window.border(x.shape[2]),
        )
        x = F.conv2d(F.pad(x, border * 2), filters, bias, conv.stride, groups=conv.groups)
        x = F.relu(x) if conv.relu else x
        weight, steps = _filters(conv.weight)
        out = _step(x.numpy(), (0, 2, 3) if conv is stem.convs[-1] else None)
        folded = _affine(steps * step / out, conv.bias / out)
        convs.append(replace(conv, weight=weight, scale=folded[0], bias=folded[1]))
        step = out
    outputs = len(stem.convs[-1].weight)
    scale, shift = stem.behind or (np.ones(outputs), np.zeros(outputs))
    return replace(stem, convs=tuple(convs), before=before, behind=_affine(scale * step, shift))


def int8_head(head: HeadStep, inputs: Array) -> HeadStep:
    """A float head in int8, calibrated on (N, inputs) of what its linear layer sees."""
    weight, steps = _filters(head.weight)
    step = _step(inputs)
    return replace(
        head, weight=weight, steps=(steps * step).astype(np.float32), inverse=float(np.float32(1 / float(step)))
    )


def _filters(weight: Array) -> tuple[Array, Array]:
    """Whole numbers, and what one of them stands for in each filter."""
    rows = weight.reshape(len(weight), -1).astype(np.float64)
    steps = np.abs(rows).max(1) / MOST
    steps[steps == 0] = 1
    return np.round(rows / steps[:, None]).astype(np.int8).reshape(weight.shape), steps


def _step(values: Array, axes: tuple[int, ...] | None = None) -> Array:
    """What one of the whole numbers stands for: of all values, or of those along ``axes``."""
    step = np.asarray(np.abs(values).max(axis=axes), np.float64) / MOST
    return np.where(step == 0, 1.0, step)


def _affine(scale: Any, shift: Any) -> Affine:
    return np.asarray(scale, np.float32), np.asarray(shift, np.float32)


def _column(values: Array) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values, np.float32)).view(1, -1, 1, 1)
