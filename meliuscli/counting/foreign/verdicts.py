"""What is to be said beside a count: notes module by module, and the verdicts that they make together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from meliuscli.counting.foreign.bits import some


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found beside the plain count: an operation or a kind of module, how often, in which modules, and what it
    means in plain words. ``doubt``: the count may be wrong because of it."""

    what: str
    times: int
    modules: tuple[str, ...]
    verdict: str
    doubt: bool = False

    @property
    def where(self) -> str:
        """The first modules: ``layer1.0, layer1.1, layer1.2 and 4 more``."""
        return some(self.modules)


@dataclass(frozen=True, slots=True)
class Note:
    """One module's share of a verdict. ``{n}`` in the text stands for the sum of the numbers."""

    what: str
    text: str
    module: str
    number: int = 0
    times: int = 1
    doubt: bool = False


def verdicts(notes: Iterable[Note]) -> tuple[Verdict, ...]:
    """Notes of the same words make one verdict."""
    groups: dict[tuple[str, str, bool], list[Note]] = {}
    for note in notes:
        groups.setdefault((note.what, note.text, note.doubt), []).append(note)
    verdicts = []
    for (what, text, doubt), same in groups.items():
        said = text.replace("{n}", f"{sum(note.number for note in same):,}")
        modules = tuple(dict.fromkeys(note.module for note in same))
        verdicts.append(Verdict(what, sum(note.times for note in same), modules, said, doubt))
    return tuple(sorted(verdicts, key=lambda verdict: not verdict.doubt))
