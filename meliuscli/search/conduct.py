"""A study from its first trial to its last training, held by one writer, every step told and kept."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from meliuscli.errors import FailedError, InterruptedByUser
from meliuscli.results import cannot_write
from meliuscli.search.begin import Begun
from meliuscli.search.budget import study_cost
from meliuscli.search.entrants import Entrant
from meliuscli.search.finals import Round, finals_of, transfer_of
from meliuscli.search.records import TrialRecord
from meliuscli.search.study import Study
from meliuscli.search.trainings import Trainings, scores
from meliuscli.work.folders import STUDY
from meliuscli.work.listener import SILENT, Listener


def open_study(begun: Begun) -> Study:
    """The study with its journal."""
    try:
        return Study(
            begun.directory, begun.settings, begun.space, study_cost(begun.directory, begun.settings, begun.origin)
        )
    except OSError as error:
        raise cannot_write(begun.directory, error) from None


def conduct(study: Study, workers: int, timeout: float | None = None, listener: Listener = SILENT) -> None:
    """Train candidates, finalists and, where asked for, transfers: what is left of them. Its folder is held.

    After ``timeout`` seconds no new candidate is started. Raises ``InterruptedByUser`` with what is kept and how to go on,
    ``FailedError`` when no candidate could be trained, ``MissingError`` when a worker is killed or the disk is full."""
    directory, trials, began = study.directory, study.settings.trials, time.monotonic()
    listener.begun(directory.name, asdict(study.settings))
    if len(study.known) >= trials:
        listener.talk(
            f"note: published networks are trained first, and {trials} trials leave none to the search's own: for an answer"
            f" take --trials {len(study.known) + 1} at least"
        )
    try:
        with Trainings[Any](workers) as trainings:
            with listener.stage("trial", trials, len(study.records())) as stage:
                for record in study.run(trainings, timeout):
                    stage.step(_told(study, record))
                    listener.measured("trials", record.number, _values(study, record))
            _explain_short(study, timeout is not None and time.monotonic() - began >= timeout, listener)
            entrants = study.entrants()
            if all(entrant.known_as is not None for entrant in entrants):
                return  # nothing that the search found would be compared
            _run_round("final", finals_of(study), entrants, trainings, listener)
            if (transfer := transfer_of(study)) is not None:
                _run_round("transfer", transfer, entrants, trainings, listener)
    except KeyboardInterrupt:
        kept = f"interrupted; {len(study.records())} of {trials} trials are kept in {directory}"
        raise InterruptedByUser(kept, f"continue with: {STUDY.resume_command(directory)}") from None
    except OSError as error:
        raise cannot_write(directory, error) from None


def first_line(begun: Begun) -> str:
    """What the answer will be about, before anything is trained."""
    if begun.settings.maximises == "belief":
        from meliuscli.evidence.belief import sentence

        return f"this search answers for ImageNet; {sentence()}"
    reason = f": {begun.origin['why_proxy']}" if begun.origin.get("why_proxy") else ""
    return f"this search answers for the proxy's data alone, {begun.space.proxy.dataset}{reason}"


def _told(study: Study, record: TrialRecord) -> str:
    score = record.reason if record.accuracy is None else f"{100 * record.accuracy:.2f} %"
    if record.result is not None and record.result.at_chance:
        score = f"{score}, which cannot be told from chance"
    return f"{record.title}: {study.cost.text(study.cost.of(record.candidate))} {study.cost.unit}, {score}"


def _values(study: Study, record: TrialRecord) -> dict[str, float]:
    """What is known of a trial: its cost, and what its training gave."""
    result = {} if record.result is None else scores(record.result.fields())
    return {study.settings.objective: study.cost.of(record.candidate), **result}


def _run_round(
    noun: str, round_: Round, entrants: Sequence[Entrant], trainings: Trainings[Any], listener: Listener
) -> None:
    with listener.stage(noun, len(entrants) * round_.seeds, round_.num_done(entrants)) as steps:
        for entrant, seed, outcome in round_.run(entrants, trainings):
            steps.step(f"{entrant.name}, seed {seed}")
            listener.measured(f"{noun}s/{entrant.name}", seed, scores(outcome))


def _explain_short(study: Study, timed_out: bool, listener: Listener) -> None:
    """Say why fewer trials than asked for were trained, and stop when there is nothing to go on with."""
    records = study.records()
    if all(record.accuracy is None for record in records):
        reason = records[-1].reason if records else "the timeout came first"
        raise FailedError(
            f"no candidate could be trained: {reason}", f"continue with: {STUDY.resume_command(study.directory)}"
        )
    if len(records) < study.settings.trials:
        why = "the space has no other network within the limits"
        if timed_out:
            why = "the timeout came; where it comes depends on this machine's speed, so another run may differ"
        listener.talk(f"note: {len(records)} of {study.settings.trials} trials: {why}")
