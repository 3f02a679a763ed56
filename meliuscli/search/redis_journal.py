"""Shared studies in Redis, as a journal of Optuna's."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import optuna
import optuna.storages.journal
from optuna.storages import BaseStorage

from meliuscli.search import backend
from meliuscli.search.backend import POLL_SECONDS, SilenceWatch, Waits, guard, no_driver, reached
from meliuscli.work.owner import Owner


class RedisBackend:
    """Optuna's journal in Redis."""

    def __init__(self, url: str, waits: Waits) -> None:
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError:
            raise no_driver("redis") from None
        self.faults: tuple[type[Exception], ...] = (redis.exceptions.RedisError,)
        self.name = url.rpartition("@")[2] if "@" in url else url
        # A command that is sent again because its answer was lost would make two trials.
        self._redis = redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0))
        self._watch = SilenceWatch()
        self._token = json.dumps(Owner.here().fields()).encode()
        self._lost = redis.exceptions.LockNotOwnedError
        self._turn: Any = None
        self.storage: BaseStorage = reached(lambda: _journal(url, self._redis), self.name, self.faults, waits)
        guard(self.storage, self._check_turn)

    @contextmanager
    def turn(self, study: str) -> Iterator[None]:
        name = f"meliuscli:{study}:turn"
        lock = self._redis.lock(name, timeout=backend.GRACE_SECONDS)
        while not lock.acquire(blocking=False, token=self._token):
            holder = self._redis.get(name)
            if holder is not None and self._has_left(holder):
                with suppress(self._lost):
                    lock.do_release(holder)  # unless it is another's meanwhile
            else:
                time.sleep(POLL_SECONDS)
        self._turn = lock
        try:
            yield
        finally:
            self._turn = None
            lock.release()

    def _has_left(self, holder: bytes) -> bool:
        """Will nobody end this turn? Its process may have ended, or may be this one, which was not told that it has it."""
        return holder == self._token or Owner.from_fields(json.loads(holder)).is_near_and_gone

    def _check_turn(self) -> None:
        """The turn is over when its time is."""
        if self._turn is not None and not self._turn.owned():
            raise self._lost("the turn was another's meanwhile")

    def beat(self, owner: Owner, trial_id: int) -> None:
        self._redis.set(f"meliuscli:alive:{owner.token}", time.time_ns(), ex=10 * backend.GRACE_SECONDS)

    def is_silent(self, owner: Owner, trial_id: int, study_id: int) -> bool:
        return self._watch.is_silent(owner, self._redis.get(f"meliuscli:alive:{owner.token}"))

    def close(self) -> None:
        self._redis.close()


def _journal(url: str, client: Any) -> BaseStorage:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        journal = optuna.storages.journal.JournalRedisBackend(url)
    journal._redis = client
    return optuna.storages.JournalStorage(journal)
