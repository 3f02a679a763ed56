"""Trainings side by side: worker processes of one thread each, so that a result does not depend on their number."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from meliuscli.arch.spec import ArchSpec
from meliuscli.errors import FailedError
from meliuscli.processes import end_with_parent, interrupts_ignored
from meliuscli.training.chance import at_chance_text
from meliuscli.training.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn

    from meliuscli.data.batches import Prepared
    from meliuscli.data.splits import Cut
    from meliuscli.training.run import RunResult


@dataclass(frozen=True, slots=True)
class Task:
    """One training: the network as it is trained, on what, how, and from which seed.

    ``device`` is torch's name of one. With ``untrained`` the zero-cost scores of the network are taken first. ``teacher``
    is a network that is trained before, in the same way but by the labels alone, to give what ``distill_weight`` asks for."""

    spec: ArchSpec
    dataset: str
    data_dir: Path | None
    recipe: Recipe
    seed: int
    score_test: bool = False
    skip_bad: bool = False
    device: str = "cpu"
    untrained: bool = False
    teacher: ArchSpec | None = None


class TrainingPool:
    """A context manager around ``workers`` processes; leaving it by an exception stops them at once. They leave signals
    to their parent. ``train`` is a function of a module, which they import."""

    def __init__(self, workers: int, train: Train) -> None:
        self._train = train
        self._executor = ProcessPoolExecutor(
            workers, mp_context=multiprocessing.get_context("spawn"), initializer=end_with_parent
        )

    def __enter__(self) -> Self:
        return self

    def submit(self, task: Task) -> Future[RunResult]:
        """Queue a task. The future raises ``MeliusError`` of the training, or ``BrokenProcessPool``."""
        with interrupts_ignored():  # the decision is left to the parent
            return self._executor.submit(self._train, task)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.stop()
        self._executor.shutdown(wait=True, cancel_futures=True)

    def stop(self) -> None:
        """End all trainings at once."""
        for process in multiprocessing.active_children():
            process.kill()
        self._executor.shutdown(wait=True, cancel_futures=True)


def train_task(task: Task) -> RunResult:
    """Train as a task says, on one thread. Raises ``MeliusError``."""
    from meliuscli.training.execution import Execution
    from meliuscli.training.run import train_once
    from meliuscli.training.zero_cost import zero_cost_scores

    _use_one_thread()
    data = _prepared(task.dataset, task.data_dir, task.spec.input_size, task.recipe.cut, task.skip_bad)
    untrained = zero_cost_scores(task.spec, data, task.recipe, task.seed) if task.untrained else None
    execution = Execution.plain(task.recipe, task.device)
    teacher, taught_by = (None, None) if task.teacher is None else _taught(_teachers(task, task.teacher))
    how: dict[str, Any] = {"execution": execution, "teacher": teacher}
    result = train_once(task.spec, data, task.recipe, task.seed, task.score_test, **how)
    at_chance = result.is_at_chance(task.spec.num_classes, len(data.validation[1]))
    return replace(result, untrained=untrained, at_chance=at_chance, taught_by=taught_by)


def _teachers(task: Task, spec: ArchSpec) -> Task:
    """The training of a task's teacher: the same for all students of a seed."""
    recipe = task.recipe.model_copy(update={"distill_weight": 0.0})
    return replace(task, spec=spec, recipe=recipe, score_test=False, untrained=False, teacher=None)


@cache
def _taught(task: Task) -> tuple[nn.Module, dict[str, Any]]:
    """A teacher that is trained as a task says, once a process, and what is to be known of it.

    Raises ``FailedError`` for one that diverges or cannot be told from chance."""
    from meliuscli.training.execution import Execution
    from meliuscli.training.run import train_once
    from meliuscli.training.weights import tensors_digest

    data = _prepared(task.dataset, task.data_dir, task.spec.input_size, task.recipe.cut, task.skip_bad)
    kept: list[nn.Module] = []
    execution = Execution.plain(task.recipe, task.device)
    result = train_once(task.spec, data, task.recipe, task.seed, on_end=kept.append, execution=execution)
    of_data = (task.spec.num_classes, len(data.validation[1]))
    if result.is_at_chance(*of_data):
        raise FailedError(
            f"the teacher, {task.spec.summary()}: {at_chance_text(result.last.validation_top1, *of_data)}"
        )
    network = kept[0].requires_grad_(False)
    digest = tensors_digest({name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()})
    facts = {"validation_top1": result.last.validation_top1, "seconds": round(result.seconds, 3), "digest": digest}
    return network, facts


Train = Callable[[Task], "RunResult"]


@cache
def _use_one_thread() -> None:
    import torch

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


@cache
def _prepared(dataset: str, data_dir: Path | None, input_size: int, cut: Cut, skip_bad: bool) -> Prepared:
    from meliuscli.data.batches import prepare
    from meliuscli.data.catalog import load_dataset

    return prepare(load_dataset(dataset, data_dir, cut, skip_bad), input_size)
