"""What a study found, as values: trials, finals, transfer, beliefs."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from meliuscli.errors import BadInputError
from meliuscli.report.believed import Beliefs, preferred
from meliuscli.report.tables import Table
from meliuscli.search import pareto
from meliuscli.search.addresses import open_backend
from meliuscli.search.conduct import open_study
from meliuscli.search.cost import Cost
from meliuscli.search.entrants import Entrant
from meliuscli.search.finals import Standing, Verdict, finals_of, transfer_of, verdicts
from meliuscli.search.goal import TargetGoal
from meliuscli.search.lost import refuse_lost
from meliuscli.search.membership import open_shared
from meliuscli.search.records import TrialRecord
from meliuscli.search.resume import reopen
from meliuscli.search.settings import Settings
from meliuscli.search.space import Candidate, SearchSpace
from meliuscli.search.study_trials import StudyTrials


@dataclass(frozen=True, slots=True)
class StudyReport:
    """Everything that the report says, as values."""

    directory: Path
    settings: Settings
    space: SearchSpace
    cost: Cost
    records: tuple[TrialRecord, ...]
    num_rejected: int
    entrants: tuple[Entrant, ...]
    standings: tuple[Standing, ...]
    transfer: tuple[Standing, ...]
    """Of the trainings on data that the search never used; empty where none were asked for."""
    origin: dict[str, Any]
    beliefs: Beliefs
    """Of every trained candidate of which the evidence says something, where the search answers for ImageNet; empty where
    it answers for the proxy's data."""

    @property
    def tables(self) -> list[Table]:
        """What the search prints."""
        from meliuscli.report.study_tables import study_tables  # which is about this class

        return study_tables(self)

    def _repr_html_(self) -> str:
        return "".join(table._repr_html_() for table in self.tables)

    @property
    def believes(self) -> bool:
        """Does the search answer for ImageNet?"""
        return self.settings.maximises == "belief"

    @property
    def front(self) -> list[TrialRecord]:
        """Trained candidates that no other beats in cost and in what the search maximises, cheapest first. Trainings that
        ended at chance say nothing of their networks, and are no part of it where the proxy's accuracy is maximised."""
        judged = [r for r in self.drawn if self.believes or (r.result is not None and not r.result.at_chance)]
        points = [(self.cost.of(record.candidate), self._worth(record)) for record in judged]
        return [judged[index] for index in pareto.front(points)]

    @property
    def front_line(self) -> list[tuple[float, float]]:
        """The front as figures draw it: a cost, and the most that one of the front's networks of at most it has of
        ``percent``. Beliefs are ranked by the lower ends of their intervals, so one that costs more can have a lower mean."""
        best = accumulate((self.percent(record) for record in self.front), max)
        return list(zip((self.cost.of(record.candidate) for record in self.front), best, strict=True))

    @property
    def trained(self) -> list[TrialRecord]:
        """The candidates that have an accuracy."""
        return [record for record in self.records if record.accuracy is not None]

    @property
    def drawn(self) -> list[TrialRecord]:
        """Those of them that have a place in figures: of which something is believed, where beliefs are drawn."""
        return [r for r in self.trained if not self.believes or r.candidate.archid in self.beliefs]

    @property
    def num_unbelieved(self) -> int:
        """Trained candidates of which nothing is believed in a search that answers for ImageNet."""
        return len(self.trained) - len(self.drawn)

    @property
    def num_at_chance(self) -> int:
        """Trained candidates whose accuracy is no better than guessing."""
        return sum(record.result.at_chance for record in self.trained if record.result is not None)

    @property
    def named(self) -> list[TrialRecord]:
        """Those of them that figures name: the known networks and the finalists."""
        finalists = {entrant.name for entrant in self.entrants}
        return [record for record in self.drawn if record.known_as or record.name in finalists]

    def percent(self, record: TrialRecord) -> float:
        """What figures show of a trained candidate: believed ImageNet top-1, or the proxy's accuracy."""
        return self.beliefs[record.candidate.archid].top1 if self.believes else 100 * (record.accuracy or 0)

    def _worth(self, record: TrialRecord) -> float:
        return self.beliefs[record.candidate.archid].low if self.believes else record.accuracy or 0.0

    @property
    def budgets(self) -> tuple[float, ...]:
        """Every budget that was asked for, the smallest first."""
        return self.settings.all_budgets

    @property
    def num_found(self) -> int:
        """Networks of the search's own that were trained."""
        return sum(record.known_as is None and record.accuracy is not None for record in self.records)

    def best(self, budget: float, is_known: bool = False) -> Standing | None:
        """The found (or known) network within a budget of best mean validation accuracy in the finals; none whose
        trainings all ended at chance, which say nothing."""
        told = (s for s in self.standings if s.num_at_chance < len(s.test))
        within = (s for s in told if self.cost.of(s.entrant.candidate) <= budget)
        return next((s for s in within if (s.entrant.known_as is not None) == is_known), None)

    @property
    def why_no_answer(self) -> tuple[str, str] | None:
        """Why the search has none, and what can be done; None where it has one."""
        done = f"{len(self.records)} of {self.settings.trials} trials are done, and published networks come first"
        if not self.num_found:
            return (
                f"the search trained no network of its own: {done}",
                "allow more --trials or a longer --timeout: meliuscli search --resume does",
            )
        if self.believes and best_found(self, self.budgets[-1]) is None:
            return (
                "nothing is believed of any network that the search trained: they lie too far from what was measured",
                "--objective proxy answers for the proxy's data; meliuscli explain beliefs says what was measured",
            )
        return None

    @property
    def verdicts(self) -> list[Verdict]:
        """The finals' answer to each known network."""
        return verdicts(self.standings, self.cost.of)

    @property
    def answers_for(self) -> str:
        """What the search's answer is about, in a sentence."""
        if self.believes:
            return "This search answers for ImageNet: it maximises what is believed of top-1 there."
        data = self.space.proxy.dataset
        reason = self.origin.get("why_proxy")
        because = f" (nothing is believed of ImageNet: {reason})" if reason else ""
        return f"This search answers for the proxy's data, {data}, and for nothing else{because}."


def gather(study: StudyTrials, origin: dict[str, Any]) -> StudyReport:
    """Read a study's trials and finals into a report."""
    entrants = tuple(study.entrants())
    transfer = transfer_of(study)
    return StudyReport(
        study.directory,
        study.settings,
        study.space,
        study.cost,
        tuple(study.records()),
        study.num_rejected,
        entrants,
        tuple(finals_of(study).standings(entrants)),
        () if transfer is None else tuple(transfer.standings(entrants)),
        origin,
        _beliefs(study),
    )


def read_study(directory: Path) -> tuple[StudyReport, str, bool]:
    """A study as it stands, a sentence on how far it is, and whether all of it is done; whoever writes it goes on
    undisturbed, for a copy is read.

    Raises ``BadInputError`` for files that are corrupt, and where trials are lost."""
    left = reopen(directory)
    if left.storage is not None:
        with closing(open_backend(left.storage, directory)) as backend:
            shared, header = open_shared(backend, directory.name, directory)
            refuse_lost(shared, directory)
            return gather(shared, header.origin), f"done: {shared.progress()}", shared.is_done
    with tempfile.TemporaryDirectory() as place:
        copied = Path(place) / directory.name
        shutil.copytree(directory, copied, ignore=shutil.ignore_patterns(".*", "*.lock"))
        try:
            study = open_study(replace(left, directory=copied))
            refuse_lost(study, directory)
            report = gather(study, left.origin)
        except BadInputError as error:  # names the copy
            message, hint = (text.replace(str(copied), str(directory)) for text in (error.message, error.hint or ""))
            raise BadInputError(message, hint or None) from None
        return replace(report, directory=directory), *how_far(study, report)


def how_far(study: StudyTrials, report: StudyReport) -> tuple[str, bool]:
    """What of a study is done, in a sentence, and whether all of it is."""
    stages = {"finals": finals_of(study), "transfers": transfer_of(study)}
    counts = [("trials", len(report.records), study.settings.trials)]
    counts += [
        (noun, stage.num_done(report.entrants), stage.seeds * len(report.entrants))
        for noun, stage in stages.items()
        if stage is not None
    ]
    told = ", ".join(f"{done} of {asked} {noun}" for noun, done, asked in counts)
    return f"done: {told}", all(done >= asked for _, done, asked in counts)


def _beliefs(study: StudyTrials) -> Beliefs:
    if not isinstance(study.goal, TargetGoal):
        return {}
    candidates = [record.candidate for record in study.records() if record.accuracy is not None]
    beliefs = study.goal.beliefs(candidates)
    pairs = zip(candidates, beliefs, strict=True)
    return {candidate.archid: belief for candidate, belief in pairs if belief is not None}


def best_found(report: StudyReport, budget: float) -> Candidate | None:
    """The preferred network within a budget, or the best of the finals on validation."""
    if report.believes:
        record = preferred(report.records, report.beliefs, report.cost, budget)
        return None if record is None else record.candidate
    best = report.best(budget)
    return None if best is None else best.entrant.candidate
