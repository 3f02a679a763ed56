"""Measured times as tables and answers."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from typing import Any

from meliuscli.packed.timing import BUSY, EAGER, PACKED, BenchResult, PartTime, Samples, Timed
from meliuscli.report.answers import Answer
from meliuscli.report.bench_value import THEORY, bench_object, rate, threads, times_first
from meliuscli.report.counted import shape_text
from meliuscli.report.tables import Cell, Column, Table
from meliuscli.results import origin
from meliuscli.units import format_mib

FIRST = "first row is faster"
_ABOUT_TORCH = (
    "eager: the network as it is, the signs of its weights taken anew each time, as in training; the others have them"
    " ready",
    "float twin: the same network without its signs",
)


def bench_answer(results: Sequence[Timed]) -> Answer:
    """Measured networks, packed ones with the time of each part; as JSON with where they were measured."""
    packed = [result for result in results if isinstance(result, BenchResult)]

    def value() -> dict[str, Any]:
        made = origin()
        if packed:
            made["versions"]["llvmlite"] = metadata.version("llvmlite")
        return {"networks": [bench_object(result, results) for result in results], "origin": made}

    return Answer((runs_table(results), *map(parts_table, packed)), value)


def runs_table(results: Sequence[Timed]) -> Table:
    """One row a network and way to run it; as records, with what was measured and the divisor. Ways are held against their
    network's first, and several networks against the first row."""
    first, isas = results[0], dict.fromkeys(result.isa for result in results if isinstance(result, BenchResult))
    references = {result.reference for result in results if len(result.runs) > 1}
    in_turns, apart = bool(references) or len(results) == 1, len(results) > 1
    faster = f"{next(iter(references), first.reference) if len(references) < 2 else 'its first'} is faster"

    def cells(result: Timed, name: str, samples: Samples) -> tuple[Cell, ...]:
        times = f"{samples.times(result.first, result.threads):.2f}x"
        return (
            *(result.arch, name, _ms(samples.median), _ms(samples.spread), _ms(samples.cpu_median)),
            *([times if len(result.runs) > 1 or not apart else ""] if in_turns else []),
            *([f"{times_first(samples, result, results):.2f}x"] if apart else []),
        )

    heads = ("ms", "± ms", "CPU ms", *([faster] if in_turns else []), *([FIRST] if apart else []))
    clock = "CPU time" if threads(results) == 1 else "wall time"
    return Table(
        ", ".join((f"batch {first.batch}", f"{first.threads} thread{'s' * (first.threads > 1)}", *isas)),
        (Column("network", numeric=False), Column("how", numeric=False), *map(Column, heads)),
        tuple(cells(result, name, samples) for result in results for name, samples in result.runs.items()),
        lines=tuple(line for result in results for line in _lines(result)),
        notes=(
            f"ms: median wall time of {len(first.first.wall)} runs in turns, ± half the distance between the quartiles;"
            " CPU: all threads together",
            *([f"{faster}: median of the ratios of paired runs, by {clock}"] if in_turns else []),
            *([f"{FIRST}: ratio of the medians, by {clock}"] if apart else []),
            *(_ABOUT_TORCH if any({PACKED, EAGER} <= set(result.runs) for result in results) else ()),
        ),
        records=tuple(_record(result, name, results) for result in results for name in result.runs),
    )


def _record(result: Timed, name: str, results: Sequence[Timed]) -> dict[str, Cell]:
    samples = result.runs[name]
    packed = result if isinstance(result, BenchResult) else None
    times = {key: samples.times(result.runs[key], result.threads) for key in (PACKED, EAGER) if key in result.runs}
    return {
        "network": result.arch,
        "archid": result.archid,
        "input": shape_text(result.input_shape),
        "batch": result.batch,
        "threads": result.threads,
        "isa": None if packed is None else packed.isa,
        "how": name,
        "ms": 1e3 * samples.median,
        "spread_ms": 1e3 * samples.spread,
        "cpu_ms": 1e3 * samples.cpu_median,
        "times_packed": times.get(PACKED),
        "times_eager": times.get(EAGER),
        "times_first": times_first(samples, result, results),
        "divisor": None if packed is None or name != PACKED else packed.divisor(),
        "size_bytes": result.size_bytes if name == result.reference else None,
        "file_bytes": result.file_bytes if name == result.reference else None,
    }


def _lines(result: Timed) -> list[str]:
    lines = _packed_lines(result) if isinstance(result, BenchResult) else []
    if not lines:
        how = (
            "in torch alone, which packs nothing"
            if result.reference == EAGER
            else f"run as it is, by {result.reference}"
        )
        lines = [f"{result.arch}: {_sizes(result)}; {how}"]
    return lines + [f"{result.arch}: not measured: {what}: {why}" for what, why in result.missing.items()]


def _sizes(result: Timed) -> str:
    file = "" if result.file_bytes is None else f"the file has {format_mib(result.file_bytes)}, "
    return f"{file}its weights at their bits {format_mib(result.size_bytes)}"


def _packed_lines(result: BenchResult) -> list[str]:
    lines = [f"{result.arch}: run as it is, with no torch network to be held against"]
    if result.checked_layers:
        lines = [
            f"{result.arch}: self-test passed: {result.checked_layers} layers, {result.checked_values:,} values,"
            " binary ones equal to torch's to the last bit"
        ]
    if result.conv_seconds:
        others = ", ".join(f"{name} {_ms(seconds)}" for name, seconds in result.conv_seconds.items())
        lines.append(
            f"{result.arch}: its {result.num_convs} binary convolutions, {result.clock}: packed"
            f" {_ms(result.binary_seconds)} ms (with sign and pack {_ms(result.binary_seconds + result.pack_seconds)}),"
            f" {others} ms in oneDNN"
        )
    divisor, with_pack = result.divisor(), result.divisor(with_pack=True)
    if divisor is not None and with_pack is not None:
        lines.append(
            f"{result.arch}: effective divisor {divisor:.1f} ({with_pack:.1f} with sign and pack); OPs take it to be {THEORY}"
        )
    ratio = result.twin_size_bytes / result.size_bytes
    lines.append(
        f"{result.arch}: {_sizes(result)}, those of the float twin {format_mib(result.twin_size_bytes)} ({ratio:.1f}x)"
    )
    if result.left:
        lines.append(
            f"{result.arch}: not packed, as weights or inputs have more than one bit: {', '.join(result.left[:3])}"
            + (f" and {len(result.left) - 3} more" if len(result.left) > 3 else "")
        )
    return lines


def parts_table(result: BenchResult) -> Table:
    """One row a part, by kind of work."""
    whole = sum(part.total for part in result.parts)

    def cells(name: str, parts: Sequence[PartTime]) -> tuple[Cell, ...]:
        binary, pack, floats = (sum(getattr(p, kind) for p in parts) for kind in ("binary", "pack", "float_"))
        gmacs = rate(sum(p.binary_macs for p in parts), binary)
        times = (_ms(seconds) if seconds else None for seconds in (binary, pack, floats))
        share = f"{100 * (binary + pack + floats) / whole:.1f}"
        return (name, *times, share, None if gmacs is None else f"{gmacs:,.0f}")

    heads = ("binary convs ms", "sign, pack ms", "float ms", "% of time", "binary GMAC/s")
    return Table(
        f"{result.arch} ({result.archid}) at {shape_text(result.input_shape)}, part by part, {result.clock}",
        (Column("part", numeric=False), *map(Column, heads)),
        tuple(cells(part.part, [part]) for part in result.parts),
        total=cells("total", result.parts),
        notes=("beginning and timing each step counts with it; the lines above have the convolutions in one go",),
    )


def busy_warning(result: Timed) -> str | None:
    """What to say when the machine was busy with something else."""
    if result.busy <= BUSY:
        return None
    return (
        f"{result.arch}: the machine is busy: wall time is {result.busy:.2f} times the processor time; look at CPU ms,"
        " or run again when it is idle"
    )


def _ms(seconds: float) -> str:
    ms = 1e3 * seconds
    return f"{ms:.1f}" if ms >= 100 else f"{ms:.2f}" if ms >= 1 else f"{ms:.3f}"
