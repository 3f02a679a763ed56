"""Scores of a network that nobody trained: one or two passes of a batch through fresh weights, in a second.

Larger scores are meant to stand for better networks. Binary convolutions are read by their sign patterns (``naswot``)
or replaced by float ones of the same weights (``synflow``), as their own output has no scale to follow."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from meliuscli.arch.spec import ArchSpec
from meliuscli.data.batches import Prepared, batches
from meliuscli.nn.binary_conv import BinaryConv2d
from meliuscli.nn.build import build
from meliuscli.training.recipe import Recipe

Batch = tuple[Tensor, Tensor]
"""Normalised images (N, C, H, W) and labels (N,)."""


def synflow(network: nn.Module, batch: Batch) -> float:
    """The logarithm of the sum of |w dR/dw| of an all-ones input through absolute weights (arXiv 2006.05467), batch norms
    as fresh ones are in evaluation, binary convolutions float."""
    linear = _floated(copy.deepcopy(network).double()).eval()  # fresh batch norms then pass their input
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter.abs_()
    linear(torch.ones_like(batch[0][:1], dtype=torch.float64)).sum().backward()
    flows = [(p * p.grad).abs().sum().item() for p in linear.parameters() if p.grad is not None]
    return math.log(max(sum(flows), 1e-300))


def naswot(network: nn.Module, batch: Batch) -> float:
    """The log determinant of how many signs in front of the binary convolutions two images share (arXiv 2006.04647)."""
    images = batch[0]
    shared = torch.zeros(len(images), len(images), dtype=torch.float64)

    def count(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        signs = torch.where(inputs[0].flatten(1) >= 0, 1.0, -1.0)
        shared.add_((signs @ signs.T).double().add_(signs.shape[1]).div_(2).cpu())

    hooks = [m.register_forward_pre_hook(count) for m in network.modules() if isinstance(m, BinaryConv2d)]
    network.train()
    with torch.no_grad():
        network(images)
    for hook in hooks:
        hook.remove()
    return float(torch.linalg.slogdet(shared).logabsdet)


def gradient_norm(network: nn.Module, batch: Batch) -> float:
    """The logarithm of the norm of the loss's gradient on one batch (arXiv 2101.08134)."""
    return 0.5 * math.log(
        max(sum(gradient.square().sum().item() for _, gradient in _gradients(network, batch)), 1e-300)
    )


def snip(network: nn.Module, batch: Batch) -> float:
    """The logarithm of the sum of |w dL/dw| on one batch (arXiv 1810.02340, 2101.08134)."""
    return math.log(max(sum((w * g).abs().sum().item() for w, g in _gradients(network, batch)), 1e-300))


ZERO_COST: dict[str, Callable[[nn.Module, Batch], float]] = {
    "synflow": synflow,
    "naswot": naswot,
    "gradient norm": gradient_norm,
    "snip": snip,
}


IMAGES = 32
"""Training images of the batch that ``zero_cost_scores`` passes through a network."""


def zero_cost_scores(spec: ArchSpec, data: Prepared, recipe: Recipe, seed: int) -> dict[str, float]:
    """Every score of the network with the weights that a training from ``seed`` starts with, on the CPU."""
    torch.manual_seed(seed)
    network = build(spec, recipe.clip_threshold, recipe.sign_gradient)
    chosen = next(batches(data.train[1], IMAGES, torch.Generator().manual_seed(seed)))
    batch = data.normalise(data.train[0][chosen]), data.train[1][chosen]
    return {name: score(network, batch) for name, score in ZERO_COST.items()}


def _gradients(network: nn.Module, batch: Batch) -> list[tuple[Tensor, Tensor]]:
    """Each parameter that the loss of one batch depends on, with its gradient."""
    images, labels = batch
    network.train()
    weights = [p for p in network.parameters() if p.requires_grad]
    loss = F.cross_entropy(network(images), labels)
    gradients = torch.autograd.grad(loss, weights, allow_unused=True)
    return [(w.detach(), g) for w, g in zip(weights, gradients, strict=True) if g is not None]


def _floated(network: nn.Module) -> nn.Module:
    """The network in place with float convolutions for binary ones."""
    for name, child in network.named_children():
        if isinstance(child, BinaryConv2d):
            setattr(network, name, _FloatConv(child))
        else:
            _floated(child)
    return network


class _FloatConv(nn.Module):
    """The convolution of a ``BinaryConv2d`` with its latent weights as they are."""

    def __init__(self, binary: BinaryConv2d) -> None:
        super().__init__()
        self.weight, self.stride, self.dilation = binary.weight, binary.stride, binary.dilation

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, stride=self.stride, padding=self.dilation, dilation=self.dilation)
