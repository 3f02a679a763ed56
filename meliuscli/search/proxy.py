"""Shared studies behind Optuna's gRPC proxy, which passes on no more than the interface of its storages."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage

from meliuscli.errors import BadInputError
from meliuscli.search.backend import SilenceWatch, Waits, guard, no_driver, reached
from meliuscli.search.bakery import BakeryLock, TurnLostError
from meliuscli.work.owner import Owner

ALIVE = "alive"
"""The attribute of a trial by which its owner shows that it is alive: it changes."""
PORT = 13000
"""Optuna's own."""


class ProxyBackend:
    """A database that Optuna's ``run_grpc_proxy_server`` serves. The turn and the signs of life are attributes of trials."""

    def __init__(self, url: str, waits: Waits) -> None:
        host, port = _address(url)
        try:
            import google.protobuf  # noqa: F401
            import grpc
        except ImportError:
            raise no_driver("grpc") from None
        self.name = url
        self.faults: tuple[type[Exception], ...] = (grpc.RpcError, TurnLostError)
        faults = (grpc.RpcError, ConnectionError)
        self.storage: BaseStorage = reached(lambda: _connected(host, port), url, faults, waits)
        self._watch = SilenceWatch()
        self._me = Owner.here()
        self._locks: dict[str, BakeryLock] = {}
        self._turn: BakeryLock | None = None
        guard(self.storage, self._check_turn)

    @contextmanager
    def turn(self, study: str) -> Iterator[None]:
        if study not in self._locks:
            self._locks[study] = BakeryLock(self.storage, f"{study}.turn", self._me)
        with self._locks[study].held():
            self._turn = self._locks[study]
            try:
                yield
            finally:
                self._turn = None

    def _check_turn(self) -> None:
        if self._turn is not None:
            self._turn.check()

    def beat(self, owner: Owner, trial_id: int) -> None:
        with suppress(UpdateFinishedTrialError):
            self.storage.set_trial_user_attr(trial_id, ALIVE, time.time_ns())

    def is_silent(self, owner: Owner, trial_id: int, study_id: int) -> bool:
        return self._watch.is_silent(owner, self.storage.get_trial(trial_id).user_attrs.get(ALIVE))

    def close(self) -> None:
        with suppress(*self.faults):
            for lock in self._locks.values():
                lock.leave()
        self.storage.close()  # type: ignore[attr-defined]


def _address(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        return parts.hostname or "localhost", parts.port or PORT
    except ValueError as error:
        raise BadInputError(f"--storage {url}: {error}", f"for example grpc://HOST:{PORT}") from None


def _connected(host: str, port: int) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        storage = optuna.storages.GrpcStorageProxy(host=host, port=port)
    storage.wait_server_ready(1.0)
    with suppress(KeyError):
        storage.get_study_id_from_name("")  # or what listens there is no such proxy
    return storage
