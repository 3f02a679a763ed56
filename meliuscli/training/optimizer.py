"""Optimisers on one long parameter, and the running average of weights."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from meliuscli.training.recipe import Recipe


def make_optimizer(parameters: list[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser."""
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimizer == "sgd":
        nesterov = recipe.momentum > 0
        return torch.optim.SGD(parameters, rate, momentum=recipe.momentum, weight_decay=decay, nesterov=nesterov)
    kind = {"radam": torch.optim.RAdam, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
    made: torch.optim.Optimizer = kind(parameters, lr=rate, betas=recipe.betas, eps=recipe.eps, weight_decay=decay)
    return made


def flatten_parameters(network: nn.Module) -> nn.Parameter:
    """One long parameter of which those of ``network`` (and their gradients) become views.

    The optimiser's arithmetic is elementwise, so the result is the same, in a few large operations instead of many
    small ones. Convolution weights lie channels-last, like the activations. Together that is a quarter of a step of
    a small network."""
    members = list(network.parameters())
    flat = nn.Parameter(torch.cat([_last(member.detach()).reshape(-1) for member in members]))
    flat.grad = torch.zeros_like(flat)
    start = 0
    for member in members:
        end, shape = start + member.numel(), _last(member).shape
        member.data, member.grad = (_first(x[start:end].view(shape)) for x in (flat.data, flat.grad))
        start = end
    return flat


def _last(x: Tensor) -> Tensor:
    """The second dimension of a four-dimensional tensor moved to the end; others as they are."""
    return x.permute(0, 2, 3, 1) if x.dim() == 4 else x


def _first(x: Tensor) -> Tensor:
    """The inverse of ``_last``."""
    return x.permute(0, 3, 1, 2) if x.dim() == 4 else x


class Average:
    """A copy of a network that holds exponentially decaying averages of its weights and statistics.

    The decay of step t is at most (1 + t) / (10 + t), so that the random start is soon forgotten; integers are copied."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        for mean, value in zip(self._tensors(self.network), self._tensors(network), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, weight)
            else:
                mean.copy_(value)

    @staticmethod
    def _tensors(network: nn.Module) -> list[Tensor]:
        return [*network.parameters(), *network.buffers()]
