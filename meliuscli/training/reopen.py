"""A run gone on with: its session, its data and its teacher, held against what it was begun with."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from meliuscli.runs import find_unfinished
from meliuscli.training.start import Ready, prepared_by_leader
from meliuscli.work.folders import RUN
from meliuscli.work.listener import SILENT, Listener
from meliuscli.work.sameness import other_data, other_option, went_on

if TYPE_CHECKING:
    from torch import nn

    from meliuscli.data.catalog import Dataset
    from meliuscli.data.folder import ImageFolder
    from meliuscli.training.session import RunPlan


def resume_run(
    name: str, data: Path | None, reports: Path, listener: Listener = SILENT, given: Sequence[str] = ()
) -> Ready:
    """The session of an unfinished run, with its data and teacher. ``given`` are options that ask for something anew.

    Raises ``BadInputError`` where the data or the teacher are others, and for any option: a run goes on as it was begun."""
    directory = find_unfinished(name, reports)
    for option in given:
        raise other_option(RUN, directory, option, f"with its own {option}")
    with ExitStack() as held:
        with listener.status("loading torch and the data"):
            import torch

            from meliuscli.training.execution import find_device
            from meliuscli.training.processes import join, started_by_torchrun
            from meliuscli.training.session import Session, read_plan

            lock = RUN.lock(directory) if started_by_torchrun().leads else None
            if lock is not None:
                held.callback(lock.release)
            plan, runs = read_plan(directory)
            device = find_device(torch.device(plan.execution.device).type)  # type: ignore[arg-type]
            loaded, teacher = _as_begun(plan, directory, data)
            processes = join(device)
            torch.set_num_threads(plan.execution.threads)
        prepared = prepared_by_leader(loaded, plan.trained_as.input_size, processes, listener)
        if processes.leads:
            others = ["the number of processes"] if plan.execution.processes != processes.count else []
            plan = replace(plan, origin=went_on(RUN, directory, plan.origin, listener, others))
        plan = replace(plan, execution=replace(plan.execution, device=device))
        held.pop_all()
    return Ready(Session.resume(reports, plan, runs, processes, lock), prepared, teacher)


def _as_begun(plan: RunPlan, directory: Path, data: Path | None) -> tuple[Dataset | ImageFolder, nn.Module | None]:
    """The data and the teacher of a run. Raises ``BadInputError`` where they are not those that it was begun with."""
    from meliuscli.data.catalog import load_dataset
    from meliuscli.training.teacher import load_teacher

    where = data if data is not None or not plan.dataset["directory"] else Path(plan.dataset["directory"])
    loaded = load_dataset(plan.dataset["name"], where, plan.recipe.cut, plan.dataset["skip_bad"])
    if loaded.digest != plan.dataset["digest"]:
        raise other_data(RUN, directory, plan.dataset["name"])
    if plan.teacher is None:
        return loaded, None
    about, teacher = load_teacher(f"run:{plan.teacher['run']}", directory.parent, plan.trained_as, loaded.digest)
    if about.fields() != plan.teacher:
        raise other_data(RUN, directory, f"its teacher run:{about.run}")
    return loaded, teacher
