"""What is being done is said on stderr wherever nothing was said for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

QUIET_SECONDS = 1.5
"""After which something that takes a moment is named, where nothing shows it."""
SHORT_SECONDS = 0.3
"""What has not taken that long is not named: it may be over at once."""


@dataclass(eq=False, slots=True)
class Doing:
    """Something that is done; with ``repeats`` it is said again after another line."""

    message: str
    is_said: bool
    repeats: bool
    began: float = field(default_factory=time.monotonic)


class Pulse:
    """What is being done, the innermost last. A thread says it with ``say`` when nothing was said for ``QUIET_SECONDS``; it
    sleeps where there is nothing to say, so that it disturbs no measurement."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._changed = threading.Condition()
        self._stack: list[Doing] = []
        self._heard = time.monotonic()
        self._thread: threading.Thread | None = None

    def begin(self, message: str) -> None:
        """What is done until the end."""
        self._heard = time.monotonic()
        self._push(Doing(message, is_said=False, repeats=True))

    def end(self) -> None:
        """Nothing is done any more."""
        with self._changed:
            self._stack.clear()

    @contextmanager
    def doing(self, message: str, is_said: bool = False, repeats: bool = True) -> Iterator[Doing]:
        """``message`` is what is done in this context; ``is_said`` where a line says it already, and without ``repeats``
        something shows it as long as it lasts."""
        one = Doing(message, is_said, repeats)
        self._push(one)
        try:
            yield one
        finally:
            with self._changed:
                if one in self._stack:
                    self._stack.remove(one)
                for outer in self._stack[-1:]:
                    outer.began, outer.is_said = time.monotonic(), outer.is_said and not outer.repeats
                self._changed.notify()

    def heard(self, says_it: bool) -> None:
        """A line was said, and what is done goes on; ``says_it``: the line says what that is."""
        with self._changed:
            self._heard = time.monotonic()
            for inner in self._stack[-1:]:
                inner.is_said = says_it or (inner.is_said and not inner.repeats)
            self._changed.notify()

    def say_now(self, message: str) -> None:
        """Say at once what is done, or ``message`` where nothing more is known, before something that lets no thread speak."""
        with self._changed:
            inner = self._stack[-1] if self._stack else None
            if inner is None or inner.is_said:
                return
            inner.is_said = True
            known = message if len(self._stack) == 1 else inner.message
        self._tell(known)

    def _push(self, one: Doing) -> None:
        with self._changed:
            self._stack.append(one)
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="pulse", daemon=True)
                self._thread.start()
            self._changed.notify()

    def _watch(self) -> None:
        while True:
            with self._changed:
                inner = self._stack[-1] if self._stack else None
                if inner is None or inner.is_said:
                    self._changed.wait()
                    continue
                due = max(self._heard + QUIET_SECONDS, inner.began + SHORT_SECONDS) - time.monotonic()
                if due > 0:
                    self._changed.wait(due)
                    continue
                inner.is_said = True
            self._tell(inner.message)

    def _tell(self, message: str) -> None:
        self._say(f"{message} ...")
        self._heard = time.monotonic()


class TorchAnnounced(MetaPathFinder):
    """Finds no module, but says that torch is loaded before it is: its libraries hold Python's lock for seconds, in which the
    pulse cannot speak."""

    def __init__(self, pulse: Pulse) -> None:
        self._pulse = pulse

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == "torch":
            self._pulse.say_now("loading torch")
        return None
