"""Measured times as the JSON object that other programs read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from meliuscli.packed.timing import BenchResult, PartTime, Samples, Timed

THEORY = 64
"""By how much OPs take a binary MAC to be cheaper than a float one."""


def bench_object(result: Timed, results: Sequence[Timed]) -> dict[str, Any]:
    """The JSON of ``bench``, an object a network of ``results``. Times are milliseconds; ``times_first`` is against the first
    network's. What is not run packed has neither instruction set, self-test, parts, convolutions nor float twin."""
    return {
        "arch": result.arch,
        "archid": result.archid,
        "input": list(result.input_shape),
        "batch": result.batch,
        "threads": result.threads,
        "wall_over_cpu": result.busy,
        "runs": [
            {
                "name": name,
                "n": len(samples.wall),
                "ms": 1e3 * samples.median,
                "spread_ms": 1e3 * samples.spread,
                "cpu_ms": 1e3 * samples.cpu_median,
                f"times_{result.reference}": samples.times(result.first, result.threads),
                "times_first": times_first(samples, result, results),
            }
            for name, samples in result.runs.items()
        ],
        "missing": result.missing,
        "compile_seconds": result.compile_seconds,
        "size_bytes": result.size_bytes,
        "file_bytes": result.file_bytes,
        **(_packed_object(result) if isinstance(result, BenchResult) else {}),
    }


def _packed_object(result: BenchResult) -> dict[str, Any]:
    return {
        "isa": result.isa,
        "self_test": {"layers": result.checked_layers, "values": result.checked_values, "wrong": 0},
        "parts_timed_by": result.clock,
        "parts": [_part_object(part) for part in result.parts],
        "convolutions": {
            "number": result.num_convs,
            "binary_macs": result.binary_macs,
            "packed_ms": 1e3 * result.binary_seconds,
            "sign_and_pack_ms": 1e3 * result.pack_seconds,
            "elsewhere_ms": {name: 1e3 * seconds for name, seconds in result.conv_seconds.items()},
            "gmac_per_second": rate(result.binary_macs, result.binary_seconds),
            "divisor": result.divisor(),
            "divisor_with_pack": result.divisor(with_pack=True),
            "theory": THEORY,
            "not_packed": list(result.left),
        },
        "twin_size_bytes": result.twin_size_bytes,
    }


def _part_object(part: PartTime) -> dict[str, Any]:
    return {
        "name": part.part,
        "binary_ms": 1e3 * part.binary,
        "pack_ms": 1e3 * part.pack,
        "float_ms": 1e3 * part.float_,
        "binary_macs": part.binary_macs,
        "gmac_per_second": rate(part.binary_macs, part.binary),
    }


def rate(macs: int, seconds: float) -> float | None:
    return 1e-9 * macs / seconds if seconds else None


def threads(results: Sequence[Timed]) -> int:
    return max(result.threads for result in results)


def times_first(samples: Samples, result: Timed, results: Sequence[Timed]) -> float:
    """How many times as long as the first network's first way; a network's own ways were run in turns."""
    if result is results[0]:
        return samples.times(result.first, result.threads)
    return samples.times_apart(results[0].first, threads(results))
