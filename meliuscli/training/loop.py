"""The training loop: a network, tensors and a recipe in, metrics out. No files, no clocks, no printing."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from meliuscli.data.batches import Prepared, augment, batches
from meliuscli.errors import FailedError
from meliuscli.training.recipe import Recipe


@dataclass(frozen=True, slots=True)
class EpochMetrics:
    """After ``epoch`` epochs (a fraction at the end of a short run): mean training loss since the last entry, and
    loss and top-1 (0 to 1) on the validation split."""

    epoch: float
    train_loss: float
    validation_loss: float
    validation_top1: float


def fit(network: nn.Module, data: Prepared, recipe: Recipe, seed: int) -> Iterator[EpochMetrics]:
    """Train ``network`` in place; yields after each epoch and where else the recipe says. The order and augmentation
    depend on ``seed`` alone.

    Raises ``FailedError`` when the loss is not finite."""
    images, labels = data.train
    generator = torch.Generator().manual_seed(seed)
    parameters = flatten_parameters(network)
    optimizer = make_optimizer([parameters], recipe)
    num_steps, per_epoch = recipe.num_steps(len(labels)), recipe.steps_per_epoch(len(labels))
    validated = recipe.validation_steps(len(labels))
    losses: list[Tensor] = []
    for step, indices in zip(range(num_steps), batches(labels, recipe.batch_size, generator), strict=False):
        network.train()
        optimizer.param_groups[0]["lr"] = recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * step / num_steps))
        inputs = data.normalise(augment(images[indices], recipe.flip, recipe.shift, generator))
        optimizer.zero_grad(set_to_none=False)
        loss = F.cross_entropy(network(inputs), labels[indices], label_smoothing=recipe.label_smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        if recipe.max_gradient_norm is not None:
            nn.utils.clip_grad_norm_([parameters], recipe.max_gradient_norm)
        optimizer.step()
        losses.append(loss.detach())
        if step + 1 in validated:
            yield _metrics(network, data, (step + 1) / per_epoch, losses)
            losses.clear()


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


def evaluate(network: nn.Module, data: Prepared, split: tuple[Tensor, Tensor]) -> tuple[float, float]:
    """Mean cross-entropy and top-1 (0 to 1) over a split, in evaluation mode."""
    images, labels = split
    network.eval()
    loss = correct = 0.0
    with torch.no_grad():
        for start in range(0, len(labels), 500):
            chunk, wanted = images[start : start + 500], labels[start : start + 500]
            logits = network(data.normalise(chunk))
            loss += F.cross_entropy(logits, wanted, reduction="sum").item()
            correct += (logits.argmax(1) == wanted).sum().item()
    return loss / len(labels), correct / len(labels)


def _metrics(network: nn.Module, data: Prepared, epoch: float, losses: list[Tensor]) -> EpochMetrics:
    train_loss = torch.stack(losses).mean().item()
    validation_loss, top1 = evaluate(network, data, data.validation)
    if not math.isfinite(train_loss) or not math.isfinite(validation_loss):
        raise FailedError(
            f"the training diverged: the loss is not finite by epoch {epoch:.2f}", "lower the learning rate"
        )
    return EpochMetrics(epoch, train_loss, validation_loss, top1)
