"""Signs and their straight-through gradients (MeliusNet's recipe: BMXNet's ``det_sign`` on activations and weights)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

CLIP_THRESHOLD = 1.3
"""Gradients pass where |activation| is at most this (the value of all MeliusNet runs)."""


def bits(x: Tensor) -> Tensor:
    """1.0 where x >= 0 and 0.0 elsewhere: the bit that stands for sign +1, with sign(0) = +1."""
    return torch.ge(x, 0, out=torch.empty_like(x))


def sign(x: Tensor) -> Tensor:
    """+1.0 where x >= 0 and -1.0 elsewhere."""
    return bits(x).mul_(2).sub_(1)


def clipped_gradient(grad: Tensor, x: Tensor, clip: float) -> Tensor:
    """The straight-through gradient of sign: ``grad`` where |x| <= ``clip``, 0 elsewhere."""
    # hardtanh's gradient is 1 strictly inside its bounds: the next float up makes |x| = clip pass, in one kernel.
    bound = float(np.nextafter(np.float32(clip), np.float32(np.inf)))
    return torch.ops.aten.hardtanh_backward(grad, x, -bound, bound)  # type: ignore[no-any-return]
