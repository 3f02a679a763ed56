"""The training loop: a network, tensors and a recipe in, metrics out. No files, no clocks, no printing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from meliuscli.data.batches import Prepared, augment, batches
from meliuscli.errors import BadInputError, FailedError
from meliuscli.nn.compiled import compile_quietly
from meliuscli.training.execution import Execution
from meliuscli.training.optimizer import Average, flatten_parameters, make_optimizer
from meliuscli.training.processes import Processes
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
    return (metrics for metrics in Training(network, data, recipe, seed).steps() if metrics is not None)


class Training:
    """A training on its way: all that moves, so that it can be written down after any step and go on from there.

    ``teacher`` gives the logits that ``distill_weight`` asks for. With several processes each takes its share of every
    batch through torch's DistributedDataParallel: the same steps as one process takes, up to rounding and to batch
    norm, which sees a process's share; the leader's statistics are the network's."""

    def __init__(
        self,
        network: nn.Module,
        data: Prepared,
        recipe: Recipe,
        seed: int,
        execution: Execution | None = None,
        teacher: nn.Module | None = None,
        processes: Processes = Processes(),  # noqa: B008 - frozen
    ) -> None:
        self.execution = execution or Execution.plain(recipe)
        self.device = torch.device(self.execution.device)
        self.network, self.data = network.to(self.device), data.to(self.device)
        self.recipe, self.processes = recipe, processes
        self.teacher = None if teacher is None else teacher.to(self.device).eval()
        if (recipe.distill_weight > 0) is (teacher is None):
            raise BadInputError("a teacher and a distill_weight above 0 need each other")
        processes.check_batch(recipe.batch_size)
        self.average = None if recipe.ema_decay is None else Average(self.network, recipe.ema_decay)
        self.parameters = flatten_parameters(self.network)
        self.optimizer = make_optimizer([self.parameters], recipe)
        num_images = len(data.train[1])
        self.num_steps, self.steps_per_epoch = recipe.num_steps(num_images), recipe.steps_per_epoch(num_images)
        self.step, self.losses = 0, list[Tensor]()
        self.generator = torch.Generator().manual_seed(seed)
        self._order_state = self.generator.get_state()
        self._order = batches(data.train[1].cpu(), recipe.batch_size, self.generator)
        self._parallel = DistributedDataParallel(self.network) if processes.count > 1 else None
        self._forward: Callable[..., Any] = self.network if self._parallel is None else self._parallel
        if self.execution.compiled:
            self._forward = compile_quietly(self._forward)

    @property
    def result(self) -> nn.Module:
        """The network to evaluate and to save: the one trained, or its running average."""
        return self.network if self.average is None else self.average.network

    @property
    def epoch(self) -> float:
        return self.step / self.steps_per_epoch

    def steps(self) -> Iterator[EpochMetrics | None]:
        """Train to the end; yields after each step, with metrics where the recipe validates.

        Raises ``FailedError`` when the loss is not finite by then."""
        validated = self.recipe.validation_steps(len(self.data.train[1]))
        while self.step < self.num_steps:
            self.advance()
            yield self._metrics() if self.step in validated else None

    def advance(self) -> None:
        """One step of the optimiser."""
        if self.step % self.steps_per_epoch == 0:
            self._order_state = self.generator.get_state()
        indices = next(self._order)
        rate = self.recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * self.step / self.num_steps))
        self.optimizer.param_groups[0]["lr"] = rate
        # Every process draws for the whole batch, so that all generators stay in step, and takes its share.
        images = self.data.train[0][indices].to(self.device)
        recipe = self.recipe
        images = augment(images, recipe.flip, recipe.shift, self.generator, recipe.crop_scale, self.data.input_size)
        inputs = self.data.normalise(self.processes.share(images))
        labels = self.processes.share(self.data.train[1][indices].to(self.device))
        self.network.train()
        self.optimizer.zero_grad(set_to_none=False)
        self.losses.append(self._gradients(inputs, labels))
        if self.recipe.max_gradient_norm is not None:
            nn.utils.clip_grad_norm_([self.parameters], self.recipe.max_gradient_norm)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.network, self.step)
        self.step += 1

    def check_finite(self) -> None:
        """Raises ``FailedError`` when a loss since the last metrics or a weight is not finite."""
        values = [self.parameters.detach().sum(), *self.losses]
        if not all(map(math.isfinite, torch.stack([value.float() for value in values]).tolist())):
            raise self._diverged()

    def tensors(self) -> dict[str, Tensor]:
        """All that has to be kept for going on, by name; with ``step``, ``restore`` takes it back."""
        state = self.optimizer.state_dict()["state"].get(0, {})
        kept = {
            **_prefixed("network", self.network.state_dict()),
            **_prefixed("optimizer", {name: value for name, value in state.items() if isinstance(value, Tensor)}),
            "generator": self.generator.get_state(),
            "generator.epoch": self._order_state,
            "generator.torch": torch.get_rng_state(),
            "losses": torch.stack(self.losses) if self.losses else torch.empty(0),
        }
        if self.average is not None:
            kept.update(_prefixed("average", self.average.network.state_dict()))
        if self.device.type == "cuda":
            kept["generator.cuda"] = torch.cuda.get_rng_state(self.device)
        # Copies: the network's parameters are views of one long one.
        return {
            name: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
            for name, value in kept.items()
        }

    def restore(self, tensors: dict[str, Tensor], step: int) -> None:
        """Go on after ``step`` from what ``tensors`` gave there. Raises ``KeyError``, ``RuntimeError`` or ``ValueError``
        for tensors of another training."""
        self.network.load_state_dict(_under("network", tensors))
        if self.average is not None:
            self.average.network.load_state_dict(_under("average", tensors))
        state = _under("optimizer", tensors)
        if any(value.dim() and value.shape != self.parameters.shape for value in state.values()):
            raise ValueError("the optimiser's state has another size")
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": {0: state} if state else {}, "param_groups": groups})
        self.losses = list(tensors["losses"].to(self.device))
        self.step, self._order_state = step, tensors["generator.epoch"]
        # The epoch's order is drawn again from where its generator was, up to the batch at hand.
        self.generator.set_state(self._order_state)
        self._order = batches(self.data.train[1].cpu(), self.recipe.batch_size, self.generator)
        for _ in islice(self._order, step % self.steps_per_epoch):
            pass
        self.generator.set_state(tensors["generator"])
        torch.set_rng_state(tensors["generator.torch"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["generator.cuda"], self.device)

    def _gradients(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Add the gradients of the mean loss over a batch, part by part; returns the loss."""
        total = torch.zeros((), device=self.device)
        count = min(self.recipe.accumulate, len(labels))
        parts = list(zip(inputs.tensor_split(count), labels.tensor_split(count), strict=True))
        for index, (images, wanted) in enumerate(parts):
            more = index + 1 < len(parts)
            with self._parallel.no_sync() if self._parallel and more else nullcontext():
                loss = self._loss(images, wanted) * (len(wanted) / len(labels))
                loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        try:
            with self.execution.autocast():
                logits = self._forward(images)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise BadInputError(
                f"batch norm needs more than one value a channel: {len(images)} image(s) at a time end in maps of one pixel",
                "raise batch_size, or lower accumulate",
            ) from None
        logits = logits.float()
        loss = F.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing)
        if self.teacher is None:
            return loss
        with torch.no_grad(), self.execution.autocast():
            wanted = self.teacher(images)
        weight = self.recipe.distill_weight
        return (1 - weight) * loss + weight * distillation(logits, wanted.float(), self.recipe.distill_temperature)

    def _metrics(self) -> EpochMetrics:
        if self.processes.count > 1:
            self.processes.share_buffers(self.result)
        mean = self.processes.sum(torch.stack(self.losses).mean()).item() / self.processes.count
        validation_loss, top1 = evaluate(self.result, self.data, self.data.validation, self.processes)
        if not math.isfinite(mean) or not math.isfinite(validation_loss):
            raise self._diverged()
        self.losses.clear()
        return EpochMetrics(self.epoch, mean, validation_loss, top1)

    def _diverged(self) -> FailedError:
        return FailedError(
            f"the training diverged: the loss is not finite by epoch {self.epoch:.2f}", "lower the learning rate"
        )


def distillation(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(logits / T)), the mean over a batch (N, classes)."""
    student, target = (F.log_softmax(x / temperature, dim=1) for x in (logits, teacher))
    return temperature**2 * F.kl_div(student, target, reduction="batchmean", log_target=True)


EVALUATED = 500
"""Images at a time in evaluation, of up to 64x64 pixels; fewer of larger ones, whose maps would not fit the memory."""


def evaluate(
    network: nn.Module,
    data: Prepared,
    split: tuple[Tensor, Tensor],
    processes: Processes = Processes(),  # noqa: B008 - frozen
) -> tuple[float, float]:
    """Mean cross-entropy and top-1 (0 to 1) over a split, in evaluation mode and float32."""
    images, labels = split
    network.eval()
    totals = [0.0, 0.0]
    step = max(1, min(EVALUATED, EVALUATED * 64**2 // data.input_size**2))
    with torch.no_grad():
        for start in range(step * processes.rank, len(labels), step * processes.count):
            chunk, wanted = images[start : start + step], labels[start : start + step].to(data.mean.device)
            logits = network(data.normalise(chunk.to(data.mean.device)))
            totals[0] += F.cross_entropy(logits, wanted, reduction="sum").item()
            totals[1] += (logits.argmax(1) == wanted).sum().item()
    if processes.count > 1:
        totals = processes.sum(torch.tensor(totals, dtype=torch.float32, device=data.mean.device)).tolist()
    return totals[0] / len(labels), totals[1] / len(labels)


def _prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": value for name, value in tensors.items()}


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(f"{prefix}."): value for name, value in tensors.items() if name.startswith(f"{prefix}.")}
