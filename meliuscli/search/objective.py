"""From a candidate at the target to the tasks that train it on the proxy."""

from __future__ import annotations

from pathlib import Path

from meliuscli.arch.adapt import as_proxy
from meliuscli.arch.spec import ArchSpec
from meliuscli.search.space import SearchSpace
from meliuscli.training.pool import Task


def proxy_spec(spec: ArchSpec, space: SearchSpace, data_dir: Path | None = None) -> ArchSpec:
    """The network that is trained in place of ``spec``: same topology at the proxy's input, for the classes and channels
    of its data, and all widths divided by the space's ``width_divisor``. Raises ``SpecError`` when it cannot exist."""
    from meliuscli.data.catalog import data_shape  # loads torch

    shape = data_shape(space.proxy.dataset, data_dir)
    return as_proxy(spec, *shape, space.proxy.input_size, space.proxy.width_divisor)


def proxy_task(spec: ArchSpec, space: SearchSpace, data_dir: Path | None, seed: int, skip_bad: bool = False) -> Task:
    """The short training that ranks a candidate, scored on the validation split. All candidates share the seed: the
    same batches in the same order for all is noise that they have in common."""
    trained = proxy_spec(spec, space, data_dir)
    return Task(trained, space.proxy.dataset, data_dir, space.proxy.recipe, seed, skip_bad=skip_bad)


def final_task(spec: ArchSpec, space: SearchSpace, data_dir: Path | None, seed: int, skip_bad: bool = False) -> Task:
    """The longer training of a finalist or known network, scored once on the test split."""
    trained = proxy_spec(spec, space, data_dir)
    return Task(trained, space.proxy.dataset, data_dir, space.final.recipe, seed, score_test=True, skip_bad=skip_bad)
