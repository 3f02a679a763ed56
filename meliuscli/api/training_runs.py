"""A training, begun and gone on with, and the network that came of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from meliuscli.api.costing import Network, named
from meliuscli.work.listener import SILENT, Listener

if TYPE_CHECKING:
    from meliuscli.runs import Run
    from meliuscli.training.execution import DeviceName
    from meliuscli.training.recipe import Recipe
    from meliuscli.training.start import Ready
    from meliuscli.training.trained import Trained


def train(
    network: Network,
    *,
    dataset: str = "fashion-mnist-mini",
    data: Path | None = None,
    skip_bad: bool = False,
    recipe: str | Recipe = "quick",
    seeds: int = 3,
    seed: int = 0,
    input_size: int = 32,
    width_divisor: int = 1,
    teacher: str | None = None,
    device: DeviceName = "auto",
    threads: int | None = None,
    weights: bool = True,
    reports: Path = Path("reports"),
    listener: Listener = SILENT,
) -> Run:
    """Train a network from ``seeds`` seeds, ``seed`` the first: what ``meliuscli train`` does. The record, with each seed's
    curve and what came of it, is ``fields`` of the result; weights lie beside it (``load_trained``). ``teacher`` is the
    recorded run (``"run:ID"``) to distil from.

    Raises as ``load``; ``MissingError`` for data that are not there; ``FailedError`` when a training diverges or ends at
    chance, and ``InterruptedByUser`` on Ctrl-C, after what was finished is recorded."""
    from meliuscli.training.recipe import find_recipe
    from meliuscli.training.start import Wanted, begin_run

    arch = named(network)
    plan = find_recipe(recipe) if isinstance(recipe, str) else recipe
    sizes, how = (seeds, input_size, width_divisor), (weights, teacher, device)
    wanted = Wanted(arch, dataset, data, skip_bad, plan, *sizes, *how, "off", threads=threads, first_seed=seed)
    return _trained(begin_run(wanted, reports, listener), listener)


def resume_train(
    run: str, *, data: Path | None = None, reports: Path = Path("reports"), listener: Listener = SILENT
) -> Run:
    """Go on with an unfinished run (``"run:ID"``) as it was begun; ``data`` is where its data are now.

    Raises as ``train``, and ``BadInputError`` where there is no such run, or its data have changed."""
    from meliuscli.training.reopen import resume_run

    return _trained(resume_run(run, data, reports, listener), listener)


def _trained(ready: Ready, listener: Listener) -> Run:
    from meliuscli.training.seeds import conduct_run

    run, failure = conduct_run(ready, listener)
    if failure is not None:
        raise failure
    assert run is not None
    return run


def load_trained(run: str | Run, seed: int | None = None, reports: Path = Path("reports")) -> Trained:
    """The network of a recorded run (``"run:ID"``), in evaluation mode, with the spec that it was trained as; without
    ``seed`` the one that was best on validation. Nothing of the files is executed.

    Raises ``BadInputError`` for an unknown run or seed, ``MissingError`` where the weights are not there."""
    from meliuscli.runs import load_run
    from meliuscli.training.trained import load_trained as load_weights_of

    return load_weights_of(load_run(run.removeprefix("run:"), reports) if isinstance(run, str) else run, seed)
