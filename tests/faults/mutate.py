"""Malformed inputs by mutation of right ones: each is read or refused as bad input or missing, in time and in little memory."""

from __future__ import annotations

import json
import random
import resource
import signal
import struct
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from conftest import TINY_SPACE

from meliuscli.arch.spec import ArchSpec
from meliuscli.errors import FailedError, MeliusError

SECONDS, MEMORY = 20, 6 * 2**30
Read = Callable[[Path], object]
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


def _spec(path: Path) -> object:
    from meliuscli.arch.zoo import load_arch
    from meliuscli.counting.analytic import count_spec

    return count_spec(load_arch(str(path)).spec)


def _space(path: Path) -> object:
    from meliuscli.search.space import load_space

    return load_space(str(path))


def _recipe(path: Path) -> object:
    from meliuscli.training.recipe import find_recipe

    return find_recipe(str(path))


def _study(path: Path) -> object:
    from meliuscli.search.resume import reopen

    (path.parent / "study.json").write_bytes(path.read_bytes())
    (path.parent / "space.toml").write_text(TINY_SPACE, encoding="utf-8")
    return reopen(path.parent)


def _journal(path: Path) -> object:
    from meliuscli.search.addresses import open_backend

    return open_backend(f"journal:{path}", path.parent).storage.get_all_studies()


def _idx(path: Path) -> object:
    from meliuscli.data.idx import read_idx

    return read_idx(path, 3)


def _weights(path: Path) -> object:
    from meliuscli.training.weights import read_spec

    return read_spec(path)


def _packed(path: Path) -> object:
    from meliuscli.export.packed import load_packed

    return load_packed(path)


def _run(path: Path) -> object:
    from meliuscli.runs import list_runs, load_run, record_path

    path.rename(record_path(path.parent, RUN))
    list_runs(path.parent)
    return load_run(RUN, path.parent)


def _spec_seed() -> bytes:
    from meliuscli.arch.zoo import load_name

    return load_name("meliusnet22").to_toml().encode()


def _study_seed() -> bytes:
    settings = {"space": "tiny", "budget": 1e8, "trials": 3, "seed": 0, "sampler": "random", "finalists": 1}
    origin = {
        "command": "x",
        "time": "2026-01-01T00:00",
        "dataset": {"name": "a", "digest": "b"},
        "versions": {},
        "machine": {},
    }
    return json.dumps({"settings": {**settings, "final_seeds": 1, "lag": 4}, "origin": origin}).encode()


def _journal_seed() -> bytes:
    lines: list[dict[str, Any]] = [
        {"op_code": 0, "worker_id": "a", "study_name": "tiny", "directions": [2, 1]},
        {"op_code": 4, "worker_id": "a", "study_id": 0, "datetime_start": "2026-01-01T00:00:00.000000+00:00"},
        {"op_code": 8, "worker_id": "a", "trial_id": 0, "user_attr": {"owner": None}},
    ]
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def _safetensors_seed() -> bytes:
    header = json.dumps(
        {"__metadata__": {"spec": _spec_seed().decode()}, "x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    ).encode()
    return struct.pack("<Q", len(header)) + header + bytes(8)


def _idx_seed() -> bytes:
    return struct.pack(">HBBIII", 0, 8, 3, 2, 4, 4) + bytes(32)


def _packed_seed() -> bytes:
    from meliuscli.export.packed import write_packed
    from meliuscli.nn.build import build

    spec = _small_spec()
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "packed.safetensors"
        write_packed(build(spec).eval(), spec, path)
        return path.read_bytes()


def _small_spec() -> ArchSpec:
    from meliuscli.arch.zoo import load_changed

    fields = {
        "num_blocks": [1, 1],
        "growth_rate": 32,
        "transition_channels": [32],
        "stem_channels": 32,
        "input_size": 32,
    }
    return load_changed("meliusnet22", {**fields, "num_classes": 10, "groups": 1}).spec


def _run_seed() -> bytes:
    from meliuscli.api import train
    from meliuscli.training.recipe import Recipe

    with tempfile.TemporaryDirectory() as place:
        recipe = Recipe(epochs=0.05, batch_size=50, learning_rate=0.01)
        with suppress(FailedError):  # of a training so short; it is recorded before
            train(_small_spec(), recipe=recipe, seeds=1, width_divisor=8, device="cpu", reports=Path(place))
        path = next(Path(place).glob("*.json"))
        return path.read_bytes().replace(path.stem.partition("-")[2].encode(), RUN.encode())


RUN = "01234567"
"""The id of the run whose record is changed."""
RECIPE = b"epochs = 1.0\nbatch_size = 64\nlearning_rate = 0.01\nbetas = [0.9, 0.99]\nshift = 2\n"
MALFORMED: dict[str, tuple[Callable[[], bytes], str, Read]] = {
    "spec": (_spec_seed, "net.toml", _spec),
    "space": (TINY_SPACE.encode, "space-in.toml", _space),
    "recipe": (lambda: RECIPE, "recipe.toml", _recipe),
    "study": (_study_seed, "in.json", _study),
    "journal": (_journal_seed, "all.log", _journal),
    "idx": (_idx_seed, "train-images-idx3-ubyte", _idx),
    "weights": (_safetensors_seed, "w.safetensors", _weights),
    "packed": (_packed_seed, "p.safetensors", _packed),
    "run record": (_run_seed, "in.json", _run),
}


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
    seeds = {name: make() for name, (make, _, _) in MALFORMED.items()}
    for name, content in seeds.items():
        assert (how := tried(name, content, home / "malformed"))[0] == "read", (name, how)
    names = list(MALFORMED)
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
    return {"inputs": counts.total(), "outcomes": dict(sorted(counts.items())), "failures": failures[:50]}


def tried(name: str, content: bytes, place: Path) -> tuple[str, str | None]:
    """Whether a content was read or refused, and the traceback of what is neither."""
    _, file, read = MALFORMED[name]
    place.mkdir(exist_ok=True)
    path = place / file
    path.write_bytes(content)
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(SECONDS)
    try:
        read(path)
    except MeliusError as error:
        return f"refused with {error.exit_code}", None if error.exit_code != 70 else error.message
    except BaseException:
        return "FAILED", traceback.format_exc()
    finally:
        signal.alarm(0)
        for left in place.iterdir():
            if left.is_file():
                left.unlink()
    return "read", None


def _too_long(*_: object) -> None:
    raise TimeoutError(f"more than {SECONDS} s")
