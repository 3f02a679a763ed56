"""The lock that is made of reading and writing: one at a time, and what becomes of those who hold it and are gone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import TrialState

from meliuscli.search import backend, bakery
from meliuscli.search.bakery import BakeryLock, TurnLostError
from meliuscli.work.owner import Owner

optuna.logging.set_verbosity(optuna.logging.WARNING)


def far() -> Owner:
    return replace(Owner.here(), place="elsewhere")


def lock_of(storage: BaseStorage, me: Owner | None = None) -> BakeryLock:
    return BakeryLock(storage, "tiny.turn", me or Owner.here())


def entered(lock: BakeryLock) -> object:
    """Take it and keep it."""
    held = lock.held()
    held.__enter__()
    return held


def in_threads(*steps: Callable[[], None]) -> None:
    failures: list[BaseException] = []

    def guarded(step: Callable[[], None]) -> None:
        try:
            step()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(step,)) for step in steps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_one_at_a_time_holds_it(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bakery, "LOOK_SECONDS", 0.002)
    turns_of_each = 10 if kind == "memory" else 2
    storage = InMemoryStorage() if kind == "memory" else optuna.storages.get_storage(f"sqlite:///{tmp_path / 'a.db'}")
    inside: list[int] = []
    turns: list[int] = []

    def work(number: int) -> None:
        lock = lock_of(storage)
        for _ in range(turns_of_each):
            with lock.held():
                assert not inside
                inside.append(number)
                lock.check()
                time.sleep(0.002)
                turns.append(inside.pop())
        lock.leave()

    in_threads(*(lambda n=n: work(n) for n in range(4)))  # type: ignore[misc]
    assert sorted(turns) == sorted(list(range(4)) * turns_of_each)
    trials = storage.get_all_trials(storage.get_study_id_from_name("tiny.turn"))
    assert [trial.state for trial in trials] == [TrialState.FAIL] * 4  # one a worker, however many turns


def test_the_turn_of_a_near_process_that_has_ended_is_given_away_at_once() -> None:
    storage = InMemoryStorage()
    entered(lock_of(storage, replace(Owner.here(), started=1)))
    with lock_of(storage).held():
        pass


def test_one_that_ended_while_it_drew_its_ticket_is_passed_by() -> None:
    storage = InMemoryStorage()
    gone = lock_of(storage, replace(Owner.here(), started=1))
    gone._enter()
    gone._write(bakery.DRAWING)
    with lock_of(storage).held():
        pass


def test_two_that_break_the_same_turn_do_not_break_each_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "GRACE_SECONDS", 0.2)
    monkeypatch.setattr(bakery, "LOOK_SECONDS", 0.01)
    storage = InMemoryStorage()
    late = lock_of(storage, far())
    held = entered(late)
    inside: list[int] = []
    done: list[int] = []

    def work() -> None:
        with lock_of(storage).held():
            assert not inside
            inside.append(1)
            time.sleep(0.1)
            done.append(inside.pop())

    in_threads(work, work)
    assert done == [1, 1]
    with pytest.raises(TurnLostError):
        late.check()
    with pytest.raises(TurnLostError):
        held.__exit__(None, None, None)  # type: ignore[attr-defined]
    with late.held():  # and it may ask again
        late.check()


def test_a_worker_that_was_taken_for_gone_learns_it_when_its_turn_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "GRACE_SECONDS", 0.1)
    storage = InMemoryStorage()
    late = lock_of(storage, far())
    with pytest.raises(TurnLostError), late.held(), lock_of(storage).held():
        pass


def test_the_time_in_which_an_observer_stands_still_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = InMemoryStorage()
    holder, waits = lock_of(storage, far()), lock_of(storage)
    held = entered(holder)
    now, looks = [0.0], [0]

    def sleep(_: float) -> None:
        now[0] += 24 * 3600.0  # stopped for a day, or its clock jumps
        looks[0] += 1
        if looks[0] == 5:
            held.__exit__(None, None, None)  # type: ignore[attr-defined]

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", sleep)
    with waits.held():
        assert looks[0] == 5
    holder.check()  # nobody broke it
