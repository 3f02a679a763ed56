"""How long a network would take, without building it: the measured times of its parts, added up.

A part (the stem, a block's convolution, a transition, the head) takes the same time wherever it stands, so each is timed
once, in the smallest network that has it, and kept in a file for this processor and instruction set. What the caches
cost in a whole network, a part on its own does not see: a factor and a constant, from whole networks, make up for
that."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from meliuscli.arch.families.dense import DenseFamilySpec, runs_whole
from meliuscli.arch.families.dense_parts import CALL, Part, parts, probe, staged_parts
from meliuscli.arch.spec import ArchSpec
from meliuscli.arch.zoo import load_name
from meliuscli.errors import BadInputError, why_unread
from meliuscli.nn.build import build
from meliuscli.packed.dense import fold_dense
from meliuscli.packed.isa import Isa
from meliuscli.packed.program import Crew, Program
from meliuscli.packed.runner import PackedDense
from meliuscli.results import cache_directory, cannot_write, processor, write_text

FORMAT = 3
SAMPLES, SAMPLE_SECONDS = 12, 3e-4
TIMES_IN_A_ROW = 16
"""A small part's steps in one run: what it takes to begin one would be as long as they are."""
WHOLE_SAMPLES = 60
STEP = 128
FACTOR, CONSTANT = "factor", "constant"
CALIBRATED_ON = (
    *(("meliusnet22", size) for size in (32, 64, 96, 128, 160, 224)),
    *((name, 224) for name in ("meliusnet29", "meliusnet42", "meliusnet59", "meliusnet-a")),
)
"""Whole networks, at input sizes, that are held against their parts once a machine: small ones too."""


def measure(part: Part, isa: Isa) -> float:
    """Seconds of one image through a part, on one thread."""
    spec, layer = probe(part)
    with torch.random.fork_rng(devices=[]):
        packed = PackedDense(spec, fold_dense(build(spec).eval(), spec), isa)
    plan, _ = packed.plan(1)
    if part[0] == "call":
        packed._program = Program(isa, (), Crew(1))  # what a call does besides its steps
        images = torch.zeros(1, *spec.input_shape)
        return _lowest(lambda: packed(images))
    steps = [step for step in plan.steps if step.layer == layer]
    once = _lowest(Program(isa, steps, Crew(1)).run, 2)
    times = min(max(round(SAMPLE_SECONDS / once), 1), TIMES_IN_A_ROW)
    return _lowest(Program(isa, steps * times, Crew(1)).run) / times


def _lowest(run: Callable[[], object], samples: int = SAMPLES) -> float:
    """Seconds of a call: the lowest of some samples of the thread's CPU time, which a busy machine disturbs least."""
    repeats, lowest = 1, float("inf")
    for _ in range(samples):
        started = time.thread_time()
        for _ in range(repeats):
            run()
        taken = (time.thread_time() - started) / repeats
        lowest = min(lowest, taken)
        repeats = max(repeats, round(SAMPLE_SECONDS / max(taken, 1e-7)))
    return lowest


def measure_whole(spec: ArchSpec, isa: Isa) -> float:
    """Seconds of one image through a whole network, on one thread, measured directly: the lowest of samples of the
    thread's CPU time. Raises ``BadInputError`` for a family that does not run whole."""
    spec = _dense(spec)
    with torch.random.fork_rng(devices=[]):
        packed = PackedDense(spec, fold_dense(build(spec).eval(), spec), isa)
    images = torch.zeros(1, *spec.input_shape)
    packed(images)
    return _lowest(lambda: packed(images), WHOLE_SAMPLES)


def _dense(spec: ArchSpec) -> DenseFamilySpec:
    if not runs_whole(spec):
        raise BadInputError(
            f"latency: {spec.family} does not run packed from end to end",
            "MeliusNet and BinaryDenseNet with borders of -1 do",
        )
    return spec


class LatencyTable:
    """Seconds of parts, measured when they are first asked for and added to a file: a line a part, behind one that says
    what it was measured with."""

    def __init__(
        self,
        isa: Isa,
        path: Path | None = None,
        *,
        way_out: str = "delete it to measure again",
        measured: Callable[[int], None] = lambda _: None,
    ) -> None:
        """``measured`` is told how many there are after each measurement. Raises ``BadInputError``, with ``way_out`` as
        hint, for a file that is corrupt or was measured elsewhere."""
        self.isa, self._measured = isa, measured
        self.path = default_path(isa) if path is None else path
        self._seconds, self._whole = _read(self.path, isa, way_out)

    def __len__(self) -> int:
        return len(self._seconds)

    def seconds(self, spec: ArchSpec) -> float:
        """Seconds of one image on one thread. Raises ``BadInputError`` for a family that does not run whole."""
        whole = _dense(spec)
        factor, constant = self._calibration()
        return factor * self._sum(whole) + constant

    def by_stage(self, spec: ArchSpec) -> dict[str, float]:
        """The same seconds, by the stages that counts have; what a call takes besides them is ``call``."""
        factor, constant = self._calibration()
        seconds: dict[str, float] = {CALL: constant}
        for stage, part in staged_parts(_dense(spec)):
            seconds[stage] = seconds.get(stage, 0.0) + factor * self._of(part)
        return seconds

    def content(self) -> str:
        """The file's text."""
        return "".join(map(_line, (_made_for(self.isa), *self._seconds.items())))

    def _sum(self, spec: DenseFamilySpec) -> float:
        return sum(self._of(part) for part in parts(spec))

    def _calibration(self) -> tuple[float, float]:
        """(factor, constant) from the sum of parts to a whole network: least squares of the relative error. Neither is
        negative: a network takes longer than none."""
        if not {FACTOR, CONSTANT} <= self._seconds.keys():
            specs = [_dense(load_name(name).replace(input_size=size)) for name, size in CALIBRATED_ON]
            for spec in specs:
                self._sum(spec)
            y = np.array([measure_whole(spec, self.isa) for spec in specs])
            # Once more, or what disturbed the machine in these seconds would be in every prediction.
            for key in list(self._seconds):
                part = tuple(int(word) if word.isdigit() else word for word in key.split())
                self._add(key, min(self._seconds[key], measure(part, self.isa)))
            y = np.minimum(y, [measure_whole(spec, self.isa) for spec in specs])
            x = np.array([self._sum(spec) for spec in specs])
            (factor, constant), *_ = np.linalg.lstsq(np.stack([x / y, 1 / y], axis=1), np.ones_like(y), rcond=None)
            if constant < 0:
                factor, constant = (x / y).sum() / ((x / y) ** 2).sum(), 0.0
            self._add(FACTOR, float(factor))
            self._add(CONSTANT, float(constant))
        return self._seconds[FACTOR], self._seconds[CONSTANT]

    def _of(self, part: Part) -> float:
        match part:
            case "transition", int(channels), *rest if channels % STEP:
                # Its time grows evenly with its channels, and there are too many widths to measure each.
                low = max(STEP, channels - channels % STEP)
                below, above = (self._of(("transition", width, *rest)) for width in (low, low + STEP))
                return below + (above - below) * (channels - low) / STEP
        key = " ".join(map(str, part))
        if key not in self._seconds:
            self._add(key, measure(part, self.isa))
        return self._seconds[key]

    def _add(self, key: str, seconds: float) -> None:
        line = _line((key, seconds))
        try:
            if not self._whole:  # no file yet, or a killed process left a line torn
                write_text(self.path, self.content())
                self._whole = True
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            raise cannot_write(self.path, error) from None
        self._seconds[key] = seconds
        self._measured(len(self))


def default_path(isa: Isa) -> Path:
    """A file in the cache directory for this processor and instruction set."""
    name = "".join(c if c.isalnum() else "-" for c in f"{processor()} {platform.machine()} {isa.name}".lower())
    return cache_directory() / "latency" / f"{name}.jsonl"


def _made_for(isa: Isa) -> dict[str, Any]:
    return {"format": FORMAT, "isa": isa.name, "processor": processor()}


def _line(value: Any) -> str:
    return json.dumps(value) + "\n"


def _read(path: Path, isa: Isa, way_out: str) -> tuple[dict[str, float], bool]:
    """The times in a file, and whether it ends with a whole line; none where there is no file, or an empty one.

    Raises ``BadInputError`` where it is corrupt or was measured elsewhere."""
    try:
        text = path.read_text(encoding="utf-8")
        # A line that a killed process left torn is no line.
        lines = [json.loads(line) for line in text.splitlines(True) if line.endswith("\n")]
        if not lines:
            return {}, False
        made_for, *times = lines
        seconds = {str(key): float(value) for key, value in times}
        there = f"{made_for['isa']} on {made_for['processor']}, format {made_for['format']}"
        if not all((value >= 0 if key == CONSTANT else value > 0) and value < 1e3 for key, value in seconds.items()):
            raise ValueError("a time is out of range")
    except FileNotFoundError:
        return {}, False
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise BadInputError(f"{path}: not a table of latencies: {why_unread(error)}", way_out) from None
    if made_for != _made_for(isa):
        raise BadInputError(
            f"{path}: measured with {there}; this is {isa.name} on {processor()}, format {FORMAT}", way_out
        )
    return seconds, text.endswith("\n")
