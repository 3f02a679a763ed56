"""What a check of proxies answers, whatever its scores are judged by; and its report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meliuscli.errors import FailedError
from meliuscli.report.answers import Answer
from meliuscli.report.tables import Table
from meliuscli.search.check import Check, read_check
from meliuscli.search.plan import Against
from meliuscli.search.space import load_space
from meliuscli.search.trust import MIN_NETWORKS


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a check answers: a table, JSON values, and the most networks that any score could be judged on. ``against`` is
    what scores are judged by."""

    directory: Path
    table: Table
    value: dict[str, Any]
    num_judged: int
    against: Against

    def answer(self, **more: str | None) -> Answer:
        """As a command prints it. ``more`` goes into JSON too."""
        return Answer((self.table,), lambda: {**self.value, **more})

    def require_judged(self) -> None:
        """Raise ``FailedError`` where nothing can be said of any proxy."""
        if self.num_judged < MIN_NETWORKS:
            how = "long" if self.against == "long" else "in any way"
            raise FailedError(
                f"fewer than {MIN_NETWORKS} networks could be trained {how}: nothing can be said of any proxy"
            )

    def __str__(self) -> str:
        return str(self.table)

    def _repr_html_(self) -> str:
        return self.table._repr_html_()


def write_check_report(check: Check) -> CheckReport:
    """The answer of a check, when its report is written into its directory."""
    if check.plan.against == "published":
        from meliuscli.report.trial import write_trial
        from meliuscli.search.trial import trial_rows

        return write_trial(check, trial_rows(check))
    from meliuscli.report.check import write_report
    from meliuscli.search.verdicts import rows

    return write_report(check, rows(check))


def read_check_report(directory: Path) -> tuple[CheckReport, str, str]:
    """What a check says as it stands, a sentence on how far it is, and the command that made it."""
    check = read_check(directory, load_space(str(directory / "space.toml"))[1])
    asked = check.asked()
    state = f"done: {sum(check.outcome(training) is not None for training in asked)} of {len(asked)} trainings"
    if check.plan.against == "published":
        from meliuscli.report.trial import trial_reported
        from meliuscli.search.trial import trial_rows

        return trial_reported(check, trial_rows(check)), state, check.origin["command"]
    from meliuscli.report.check import reported
    from meliuscli.search.verdicts import rows

    return reported(check, rows(check)), state, check.origin["command"]
