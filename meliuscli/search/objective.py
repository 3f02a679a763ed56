"""From a candidate at the target to the tasks that train it on the proxy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from meliuscli.arch.adapt import as_proxy
from meliuscli.arch.spec import ArchSpec
from meliuscli.search.space import SearchSpace
from meliuscli.search.ways import Proxy, Transfer
from meliuscli.training.pool import Task


def proxy_spec(spec: ArchSpec, space: SearchSpace, data_dir: Path | None = None) -> ArchSpec:
    """The network that is trained in place of ``spec``: same topology at the proxy's input, for the classes and channels
    of its data, and all widths divided by the space's ``width_divisor``. Raises ``SpecError`` when it cannot exist."""
    return _narrowed(spec, space.proxy.dataset, data_dir, space.proxy)


def proxy_task(
    spec: ArchSpec, space: SearchSpace, data_dir: Path | None, seed: int, skip_bad: bool = False, device: str = "cpu"
) -> Task:
    """The short training that ranks a candidate, scored on the validation split. All candidates share the seed: the
    same batches in the same order for all is noise that they have in common."""
    trained = proxy_spec(spec, space, data_dir)
    return Task(trained, space.proxy.dataset, data_dir, space.proxy.recipe, seed, skip_bad=skip_bad, device=device)


def final_task(task: Task, space: SearchSpace, seed: int) -> Task:
    """The longer training of a finalist or known network, scored once on the test split; ``task`` is its short one."""
    return replace(task, recipe=space.final.recipe, seed=seed, score_test=True)


def transfer_task(
    task: Task, spec: ArchSpec, space: SearchSpace, dataset: str, data_dir: Path | None, seed: int
) -> Task:
    """The training of a finalist or known network on data that the search never used, scored once on the test split;
    ``task`` is its short one."""
    trained = _narrowed(spec, dataset, data_dir, space.transfer)
    recipe = space.transfer.recipe
    return replace(task, spec=trained, dataset=dataset, data_dir=data_dir, recipe=recipe, seed=seed, score_test=True)


def _narrowed(spec: ArchSpec, dataset: str, data_dir: Path | None, way: Proxy | Transfer) -> ArchSpec:
    from meliuscli.data.catalog import data_shape  # loads torch

    return as_proxy(spec, *data_shape(dataset, data_dir), way.input_size, way.width_divisor)
