"""A search, begun and gone on with."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from meliuscli.work.folders import STUDY
from meliuscli.work.interrupts import telling_what_is_kept
from meliuscli.work.listener import SILENT, Listener

if TYPE_CHECKING:
    from meliuscli.report.study import StudyReport
    from meliuscli.search.begin import Begun
    from meliuscli.search.sampler import SamplerName
    from meliuscli.training.execution import DeviceName


def search(
    budget: float | Sequence[float],
    space: str | Path = "meliusnet",
    *,
    cost: Literal["ops", "latency"] = "ops",
    objective: Literal["belief", "proxy"] | None = None,
    max_size: float | None = None,
    max_params: float | None = None,
    trials: int = 20,
    timeout: float | None = None,
    seed: int = 0,
    sampler: SamplerName = "cost-aware",
    finalists: int = 5,
    final_seeds: int = 3,
    workers: int | None = None,
    dataset: str | None = None,
    data: Path | None = None,
    skip_bad: bool = False,
    transfer: str | None = None,
    device: DeviceName = "cpu",
    reports: Path = Path("reports"),
    name: str | None = None,
    listener: Listener = SILENT,
) -> StudyReport:
    """The best networks of a space under a budget: what ``meliuscli search`` does, written to a folder in ``reports``.

    ``budget`` is in OPs at the target input, or in seconds with ``cost="latency"``; several budgets have an answer each.
    ``max_size`` is in bytes, ``timeout`` in seconds. Trainings run in spawned processes, so a script needs
    ``if __name__ == "__main__":``.

    Raises ``BadInputError``, ``SpecError`` or ``MissingError`` before anything is trained, ``InterruptedByUser`` on Ctrl-C
    with what is kept."""
    from meliuscli.search.begin import Asked, begin

    workers = workers or os.cpu_count() or 1
    asked = Asked(
        budgets=tuple(sorted(set(budget))) if isinstance(budget, Sequence) else (budget,),
        space=str(space),
        objective=cost,
        maximises=objective,
        max_size=max_size,
        max_params=max_params,
        trials=trials,
        seed=seed,
        sampler=sampler,
        finalists=finalists,
        final_seeds=final_seeds,
        dataset=dataset,
        data=data,
        skip_bad=skip_bad,
        transfer=transfer,
        device=device,
    )
    return conducted(begin(asked, workers, reports, name, listener=listener), False, workers, timeout, listener)


def resume_search(
    name: str,
    *,
    trials: int | None = None,
    transfer: str | None = None,
    timeout: float | None = None,
    workers: int | None = None,
    reports: Path = Path("reports"),
    listener: Listener = SILENT,
) -> StudyReport:
    """Go on with a study, finished or not, with the settings that it was made with: to more ``trials``, or to data to
    ``transfer`` to. Raises as ``search``, and ``BadInputError`` where there is no such study or its data have changed."""
    from meliuscli.search.resume import reopen, with_given

    given = {"transfer": transfer} | ({} if trials is None else {"trials": trials})
    begun = with_given(reopen(STUDY.find(reports, name, "")), given)
    return conducted(begun, True, workers or os.cpu_count() or 1, timeout, listener)


def conducted(begun: Begun, again: bool, workers: int, timeout: float | None, listener: Listener) -> StudyReport:
    """What is left of a study, trained and reported."""
    from meliuscli.report.study import gather, how_far
    from meliuscli.report.study_page import write_report
    from meliuscli.search.conduct import conduct, first_line, open_study
    from meliuscli.search.lost import lost_trials, refuse_lost
    from meliuscli.search.resume import go_on

    with STUDY.held(begun.directory):
        begun = go_on(begun, listener) if again else begun
        study = open_study(begun)
        listener.talk(first_line(begun))
        if (lost := lost_trials(study, study.directory)) is not None:
            listener.talk(f"note: {lost}, and are trained again")
        if study.num_foreign:
            listener.talk(
                f"note: trials that other programs put into {study.directory} are left out: {study.num_foreign}"
            )
        conduct(study, workers, timeout, listener)
        refuse_lost(study, study.directory)
        kept, way = f"all trainings are kept in {study.directory}", STUDY.report_command(study.directory)
        last = telling_what_is_kept(f"interrupted while the report was written; {kept}", f"write it with: {way}")
        with last, listener.status("writing the report"):
            report = gather(study, begun.origin)
            write_report(report)
            if how_far(study, report)[1]:
                STUDY.mark_done(study.directory)
    return report
