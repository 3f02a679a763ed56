"""What a batch norm of torch holds."""

from __future__ import annotations

from torch import nn


def stored_bn_values(norm: nn.modules.batchnorm._BatchNorm) -> int:
    """Values a channel on disk: mean and variance, and what is learned of scale and shift."""
    learned = sum(p is not None and p.requires_grad for p in (norm.weight, norm.bias))
    return 2 * (norm.running_mean is not None) + learned
