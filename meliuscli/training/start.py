"""A run begun: its session, its data and its teacher, checked before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from meliuscli.arch.adapt import at_input, narrowed
from meliuscli.arch.spec import ArchSpec
from meliuscli.arch.zoo import NamedArch, parse_overrides
from meliuscli.counting.footprint import TRAINED, require_room
from meliuscli.data.names import refuse_skip_bad
from meliuscli.errors import BadInputError
from meliuscli.runs import new_id
from meliuscli.work.listener import SILENT, Listener

if TYPE_CHECKING:
    from torch import nn

    from meliuscli.data.batches import Prepared
    from meliuscli.data.catalog import Dataset
    from meliuscli.data.folder import ImageFolder
    from meliuscli.training.choice import CompileMode
    from meliuscli.training.execution import DeviceName, Execution
    from meliuscli.training.processes import Processes
    from meliuscli.training.recipe import Recipe
    from meliuscli.training.session import RunPlan, Session
    from meliuscli.training.teacher import Teacher


DISTILL_WEIGHT = 0.5
"""Of a teacher that the command line names and the recipe has no weight for."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a training is asked for."""

    named: NamedArch
    dataset: str
    data: Path | None
    skip_bad: bool
    recipe: Recipe
    seeds: int
    input_size: int
    width_divisor: int
    weights: bool
    teacher: str | None
    device: DeviceName
    compile: CompileMode
    threads: int | None = None
    first_seed: int = 0
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ready:
    """All that training takes."""

    session: Session
    data: Prepared
    teacher: nn.Module | None


def begin_run(wanted: Wanted, reports: Path, listener: Listener = SILENT) -> Ready:
    """The session of a new run, with its data and teacher."""
    recipe = _for_teacher(wanted.recipe, wanted.teacher)
    refuse_skip_bad(wanted.skip_bad, (wanted.dataset,))
    with listener.status("loading torch and the data"):
        loaded = _load(wanted, recipe, reports)
    dataset, spec, processes, device = loaded.dataset, loaded.spec, loaded.processes, loaded.device
    _check_batch(spec, recipe, len(dataset.train), processes.count, device == "cpu", listener)
    prepared = prepared_by_leader(dataset, wanted.input_size, processes, listener)
    execution = None
    if processes.leads:
        from meliuscli.training.choice import choose_execution

        with listener.status("measuring how this machine trains it fastest (--compile off takes it as it is)"):
            execution = choose_execution(spec, prepared, recipe, wanted.seeds, device, wanted.compile, loaded.teacher)
            execution = replace(execution, processes=processes.count)
    execution = replace(processes.told_by_leader(execution), device=device)
    from meliuscli.training.session import Session

    plan = _plan(wanted, recipe, loaded, prepared, execution)
    return Ready(Session.begin(reports, plan, processes), prepared, loaded.teacher)


class _Loaded(NamedTuple):
    """What a run is made of, before its images are decoded. ``spec`` is for these data."""

    device: str
    dataset: Dataset | ImageFolder
    spec: ArchSpec
    about_teacher: Teacher | None
    teacher: nn.Module | None
    processes: Processes


def _load(wanted: Wanted, recipe: Recipe, reports: Path) -> _Loaded:
    import torch

    from meliuscli.data.catalog import load_dataset
    from meliuscli.training.execution import find_device
    from meliuscli.training.processes import join
    from meliuscli.training.teacher import load_teacher

    device = find_device(wanted.device)
    if wanted.threads is not None:
        torch.set_num_threads(wanted.threads)
    dataset = load_dataset(wanted.dataset, wanted.data, recipe.cut, wanted.skip_bad)
    spec = at_input(wanted.named.spec, dataset.num_classes, dataset.channels, wanted.input_size)
    _refuse_lost(wanted.overrides, wanted.named.spec, spec)
    spec = narrowed(spec, wanted.width_divisor, "--width-divisor")
    about, teacher = None, None
    if wanted.teacher is not None:
        about, teacher = load_teacher(wanted.teacher, reports, spec, dataset.digest)
    processes = join(device)
    processes.check_batch(recipe.batch_size)
    return _Loaded(device, dataset, spec, about, teacher, processes)


def _plan(wanted: Wanted, recipe: Recipe, loaded: _Loaded, prepared: Prepared, execution: Execution) -> RunPlan:
    from meliuscli.data.batches import num_left_out
    from meliuscli.results import origin
    from meliuscli.training.session import RunPlan

    named = wanted.named
    return RunPlan(
        id=loaded.processes.told_by_leader(new_id(named.spec.archid, wanted.dataset)),
        arch=named.name,
        archid=named.spec.archid,
        trained_as=loaded.spec,
        dataset={
            "name": wanted.dataset,
            "digest": loaded.dataset.digest,
            "directory": None if wanted.data is None else str(wanted.data.resolve()),
            "skip_bad": wanted.skip_bad,
            **({"left_out": num_left_out(loaded.dataset, prepared)} if wanted.skip_bad else {}),
        },
        recipe=recipe,
        seeds=wanted.seeds,
        first_seed=wanted.first_seed,
        keep_weights=wanted.weights,
        teacher=None if loaded.about_teacher is None else loaded.about_teacher.fields(),
        execution=execution,
        origin=origin(),
    )


def _check_batch(
    spec: ArchSpec, recipe: Recipe, num_images: int, num_processes: int, on_cpu: bool, listener: Listener
) -> None:
    """Say where a batch is all images; raise ``MissingError`` where a step would take more memory than there is."""
    if on_cpu:
        at_once = -(-min(recipe.batch_size, num_images) // (recipe.accumulate * num_processes))
        what = f"a step of {spec.summary()} with batch_size {recipe.batch_size}"
        require_room(
            spec, at_once, TRAINED, what, "take a smaller --batch-size, or --recipe-set accumulate=2", copies=4
        )
    if recipe.batch_size > num_images:
        listener.talk(
            f"note: batch_size is {recipe.batch_size}; a step takes the {num_images:,} training images that there are"
        )


def _refuse_lost(overrides: Sequence[str], asked: ArchSpec, trained: ArchSpec) -> None:
    """Raise ``BadInputError`` for a field that ``--set`` changes and the data, or the size to train at, change back."""
    for key in parse_overrides(overrides):
        if getattr(asked, key, None) != (value := getattr(trained, key, None)):
            of = "--input-size" if key in ("input_size", "stem") else "the data"
            raise BadInputError(f"--set {key}: what is trained has {key} = {value}, by {of}", "leave it out")


def _for_teacher(recipe: Recipe, teacher: str | None) -> Recipe:
    """The recipe with a weight for the teacher, where it names none. Raises ``BadInputError`` for one without the other."""
    if teacher is not None and "distill_weight" not in recipe.model_fields_set:
        return recipe.model_copy(update={"distill_weight": DISTILL_WEIGHT})
    if (recipe.distill_weight > 0) is (teacher is None):
        raise BadInputError(
            f"a teacher and a distill_weight above 0 need each other, and distill_weight is {recipe.distill_weight:g}",
            "--teacher run:ID" if teacher is None else f"leave it out for {DISTILL_WEIGHT:g}",
        )
    return recipe


def prepared_by_leader(
    dataset: Dataset | ImageFolder, input_size: int, processes: Processes, listener: Listener
) -> Prepared:
    """The leader first: what it decodes the others find decoded."""
    from meliuscli.data.batches import prepare
    from meliuscli.data.decoding import prepare_and_tell

    if processes.leads:
        prepared = prepare_and_tell(dataset, input_size, listener)
        processes.told_by_leader(None)
        return prepared
    processes.told_by_leader(None)
    return prepare(dataset, input_size)
