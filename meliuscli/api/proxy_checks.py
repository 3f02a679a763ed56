"""A check of a proxy, begun and gone on with."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meliuscli.work.folders import CHECK
from meliuscli.work.interrupts import telling_what_is_kept
from meliuscli.work.listener import SILENT, Listener

if TYPE_CHECKING:
    from meliuscli.report.check_report import CheckReport
    from meliuscli.search.check import Check
    from meliuscli.search.checking import AskedCheck
    from meliuscli.search.plan import Against
    from meliuscli.training.execution import DeviceName
    from meliuscli.training.recipe import Recipe


def check_proxy(
    space: str | Path = "meliusnet",
    *,
    networks: int | None = None,
    budget: int | None = None,
    changes: Path | None = None,
    long: str | Recipe | None = None,
    long_epochs: float | None = None,
    long_dataset: str | None = None,
    against: Against = "long",
    fractions: Sequence[float] | None = None,
    device: DeviceName = "cpu",
    data: Path | None = None,
    skip_bad: bool = False,
    seed: int = 0,
    workers: int | None = None,
    reports: Path = Path("reports"),
    name: str | None = None,
    listener: Listener = SILENT,
) -> CheckReport:
    """Does a short training rank a space's networks as a long one does, or as ImageNet does (``against="published"``)? What
    ``meliuscli check-proxy`` does, written to a folder in ``reports``: ``table``, and ``value`` with raw numbers.

    ``networks`` (24) are sampled, of at most ``budget`` OPs at the target input; ``changes`` is a TOML file with [long] and
    [proxies.NAME]; the long training is also read after ``fractions`` (0.25, 0.5) of its steps. Trainings run in spawned
    processes, so a script needs ``if __name__ == "__main__":``.

    Raises ``BadInputError``, ``SpecError`` or ``MissingError`` before anything is trained, ``InterruptedByUser`` on Ctrl-C
    with what is kept."""
    from meliuscli.search.checking import AskedCheck
    from meliuscli.training.recipe import find_recipe

    asked = AskedCheck(
        space=str(space),
        networks=networks,
        budget=budget,
        changes=changes,
        long=find_recipe(long) if isinstance(long, str) else long,
        long_epochs=long_epochs,
        long_dataset=long_dataset,
        against=against,
        device=device,
        data=data,
        skip_bad=skip_bad,
        fractions=None if fractions is None else tuple(fractions),
        seed=seed,
    )
    return checked_anew(asked, workers or os.cpu_count() or 1, reports, name, False, listener)


def resume_check(
    name: str,
    *,
    changes: Path | None = None,
    data: Path | None = None,
    workers: int | None = None,
    reports: Path = Path("reports"),
    listener: Listener = SILENT,
) -> CheckReport:
    """Go on with a check as it was begun, finished or not; ``changes`` may have more proxies, ``data`` is where its data are
    now. Raises as ``check_proxy``, and ``BadInputError`` where there is no such check or its data have changed."""
    given = {key: value for key, value in (("changes", changes), ("data", data)) if value is not None}
    return checked_again(name, given, workers or os.cpu_count() or 1, reports, listener)


def checked_anew(
    asked: AskedCheck, workers: int, reports: Path, name: str | None, force: bool, listener: Listener
) -> CheckReport:
    """A new check, trained and reported; ``force`` empties its folder first."""
    from meliuscli.search.checking import begin_check

    check = begin_check(asked, reports, name, force, listener)
    with CHECK.held(check.directory):
        return _checked(check, workers, listener)


def checked_again(
    name: str | None, given: Mapping[str, Any], workers: int, reports: Path, listener: Listener
) -> CheckReport:
    """What is left of a check, trained and reported. ``given`` are fields of an ``AskedCheck`` that are asked for anew."""
    from meliuscli.search.checking import default_check_name, go_on_check

    default = default_check_name(given.get("against", "long"), Path(given.get("space", "meliusnet")).stem)
    directory = CHECK.find(reports, name, default)
    with CHECK.held(directory):
        return _checked(go_on_check(directory, given, listener), workers, listener)


def _checked(check: Check, workers: int, listener: Listener) -> CheckReport:
    from meliuscli.report.check_report import write_check_report
    from meliuscli.search.checking import conduct_check

    conduct_check(check, workers, listener)
    kept = f"interrupted while the report was written; all trainings are kept in {check.directory}"
    last = telling_what_is_kept(kept, f"write it with: {CHECK.resume_command(check.directory)}")
    with last, listener.status("writing the report"):
        return write_check_report(check)
