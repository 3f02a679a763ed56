"""Malformed inputs by mutation of right ones: each is read or refused as bad input or missing, in time and in little memory."""

from __future__ import annotations

import random
import resource
import shutil
import signal
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import typer
from malformed import MALFORMED

from meliuscli.errors import MeliusError

SECONDS, MEMORY = 20, 6 * 2**30
USAGE_ERROR = typer.BadParameter.__bases__[0]
WORDS = (
    b"1e999",
    b"-1",
    b"nan",
    b'"',
    b"[",
    b"]",
    b"{",
    b"}",
    b"=",
    b"\n",
    b"\0",
    b"\xff",
    b"99999999999999999999",
    b"../../x",
)


def mutated(content: bytes, rng: random.Random) -> bytes:
    """One to four changes: bytes turned, cut, doubled, put in, numbers made huge."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.choice((1, 1, 4, 40)))
        kind = rng.randrange(6)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[at:end]
        elif kind == 2:
            data[at:at] = data[at:end]
        elif kind == 3:
            data[at:at] = rng.choice(WORDS)
        elif kind == 4:
            del data[at:]
        elif at < len(data):
            data[at:end] = bytes(rng.randrange(256) for _ in range(end - at))
    return bytes(data)


def attack(rng: random.Random, minutes: float, home: Path, most: int = 10_000) -> dict[str, Any]:
    """Mutations of every kind in turn, until the time is over or there were ``most``; what was read, refused, and what failed."""
    end = time.monotonic() + 60 * minutes
    counts: Counter[str] = Counter()
    failures: list[str] = []
    seeds, skipped = made()
    for name, content in seeds.items():
        assert (how := tried(name, content, home / "malformed"))[0] == "read", (name, how)
    names = list(seeds)
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, before[1]))
    try:
        for number in range(most):
            if time.monotonic() > end:
                break
            name = names[number % len(names)]
            content = mutated(seeds[name], rng)
            how, trace = tried(name, content, home / "malformed")
            counts[f"{name}: {how}"] += 1
            if trace is not None:
                failures.append(f"{name}: {trace}")
                (home / f"failure-{len(failures)}-{name.replace(' ', '-')}").write_bytes(content)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    outcomes = dict(sorted(counts.items()))
    return {"inputs": counts.total(), "outcomes": outcomes, "failures": failures[:50], "skipped": skipped}


def made() -> tuple[dict[str, bytes], dict[str, str]]:
    """A right content of every kind, and why there is none of some: what writes it is not installed."""
    seeds, skipped = {}, {}
    for name, (make, _, _) in MALFORMED.items():
        try:
            seeds[name] = make()
        except pytest.skip.Exception as reason:
            skipped[name] = str(reason)
    return seeds, skipped


def tried(name: str, content: bytes, place: Path) -> tuple[str, str | None]:
    """Whether a content was read or refused, and the traceback of what is neither."""
    _, file, read = MALFORMED[name]
    place.mkdir(parents=True, exist_ok=True)
    path = place / file
    path.write_bytes(content)
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(SECONDS)
    try:
        read(path)
    except MeliusError as error:
        return f"refused with {error.exit_code}", None if error.exit_code != 70 else error.message
    except USAGE_ERROR:
        return "refused with 2", None
    except BaseException:
        return "FAILED", traceback.format_exc()
    finally:
        signal.alarm(0)
        shutil.rmtree(place)
    return "read", None


def _too_long(*_: object) -> None:
    raise TimeoutError(f"more than {SECONDS} s")
