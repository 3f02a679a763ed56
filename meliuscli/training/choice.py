"""Precision and compilation chosen for a run, by short measurements where the choice is left to the machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from torch import nn

from meliuscli.arch.spec import ArchSpec
from meliuscli.data.batches import Prepared
from meliuscli.training.execution import Execution, describe_device, has_bfloat16
from meliuscli.training.loop import Training
from meliuscli.training.network import build_for_training
from meliuscli.training.recipe import Recipe
from meliuscli.units import format_duration
from meliuscli.work.interrupts import heed_interrupt

CompileMode = Literal["auto", "on", "off"]

WORTH = 0.95
"""A choice has to take less than this share of the time to be made: measurements scatter."""

COMPILES_FROM = 1200.0
"""Seconds of eager training below which compiling, which takes two minutes on two cores, is not even tried: a choice
should cost less than a tenth of what is chosen."""

ROUNDS, ROUND_SECONDS = 5, 20.0
"""Steps timed for a choice; with steps of many seconds fewer, but two."""


def choose_execution(
    spec: ArchSpec,
    data: Prepared,
    recipe: Recipe,
    seeds: int,
    device: str,
    compile_mode: CompileMode,
    teacher: nn.Module | None = None,
) -> Execution:
    """How to train on ``device``. What is measured is trained on a network of its own; nothing random is touched.

    ``auto`` compiles a run when compiling and the compiled steps together take less than the eager steps would. Where
    the compiler fails, ``on`` too goes on eagerly; the notes say so."""
    chosen = Execution(
        device,
        "bfloat16" if recipe.precision == "bfloat16" else "float32",
        threads=torch.get_num_threads(),
        device_name=describe_device(device),
    )

    def starter(execution: Execution) -> Callable[[], float]:
        return _stepper(spec, data, recipe, execution, teacher)

    # `get_rng_state` of the CPU and, on CUDA, of that device, put back at the end.
    with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []):
        if recipe.precision == "auto":
            chosen = _with_precision(chosen, starter)
        return _with_compilation(chosen, starter, compile_mode, recipe.num_steps(len(data.train[1])) * seeds)


def _with_precision(chosen: Execution, starter: Callable[[Execution], Callable[[], float]]) -> Execution:
    if not has_bfloat16(chosen.device):
        return _noted(chosen, f"float32: {chosen.device} has no bfloat16 arithmetic")
    narrow = replace(chosen, precision="bfloat16")
    wide, narrowed = _seconds(starter(chosen), starter(narrow))
    note = f"a step took {1000 * wide:.1f} ms in float32 and {1000 * narrowed:.1f} ms in bfloat16"
    return _noted(narrow, f"bfloat16: {note}") if narrowed < WORTH * wide else _noted(chosen, f"float32: {note}")


def _with_compilation(
    chosen: Execution, starter: Callable[[Execution], Callable[[], float]], mode: CompileMode, num_steps: int
) -> Execution:
    if mode == "off":
        return chosen
    eager = 0.0
    if mode == "auto":
        (eager,) = _seconds(starter(chosen))
        if eager * num_steps < COMPILES_FROM:
            return _noted(chosen, f"not compiled: the run takes about {format_duration(eager * num_steps)}")
    compiled = replace(chosen, compiled=True)
    started = time.perf_counter()
    try:
        step = starter(compiled)
        first = time.perf_counter() - started
        (fast,) = _seconds(step)
    except Exception as error:  # no compiler on the machine, or a graph that it cannot take
        heed_interrupt()
        return _noted(chosen, f"not compiled, torch.compile failed: {_first_line(error)}")
    if mode == "on":
        return _noted(compiled, f"compiled in {format_duration(first)}, as asked for")
    total, without = first + fast * num_steps, eager * num_steps
    note = (
        f"about {format_duration(total)} with compiling ({format_duration(first)}), {format_duration(without)} without"
    )
    return _noted(compiled, f"compiled: {note}") if total < WORTH * without else _noted(chosen, f"not compiled: {note}")


def _seconds(*steps: Callable[[], float]) -> list[float]:
    """The median seconds of each, in turns."""
    started, times = time.perf_counter(), list[list[float]]()
    while len(times) < 2 or (len(times) < ROUNDS and time.perf_counter() - started < ROUND_SECONDS):
        times.append([step() for step in steps])
    return [statistics.median(column) for column in zip(*times, strict=True)]


def _stepper(
    spec: ArchSpec, data: Prepared, recipe: Recipe, execution: Execution, teacher: nn.Module | None
) -> Callable[[], float]:
    """A function that trains one step and returns its seconds, after one to warm up."""
    torch.manual_seed(0)
    network = build_for_training(spec, recipe)
    training = Training(network, data, recipe, 0, execution, teacher)

    def step() -> float:
        started = time.perf_counter()
        training.advance()
        training.losses[-1].item()  # waits for the device
        return time.perf_counter() - started

    step()
    return step


def _noted(execution: Execution, note: str) -> Execution:
    return replace(execution, notes=(*execution.notes, note))


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]
