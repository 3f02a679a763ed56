"""Measuring a network: the self-test first, then packed and its opponents in turns, then part by part."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from meliuscli.arch.spec import ArchSpec
from meliuscli.counting.analytic import count_spec
from meliuscli.nn.build import build
from meliuscli.packed.opponents import Run, compiled, conv_runs, float_twin, int8, plain
from meliuscli.packed.program import Kind
from meliuscli.packed.runner import PackedNetwork, PartSeconds, pack
from meliuscli.packed.selftest import LayerCheck, check, require_exact
from meliuscli.packed.timing import PACKED, WARM_UP, BenchResult, Counting, PartTime, Samples, Timed, in_turns
from meliuscli.work.interrupts import heed_interrupt

_PARTS, _ALONE = "part by part", "convolutions alone in "
Talk = Callable[[str], None]


def bench_network(
    name: str,
    spec: ArchSpec,
    *,
    batch: int = 1,
    threads: int = 1,
    isa: str | None = None,
    opponents: str = "quick",
    runs: int = 15,
    seed: int = 0,
    talk: Talk = lambda _: None,
    counting: Callable[[str], AbstractContextManager[Counting]] = lambda _: nullcontext(lambda *_: None),
) -> BenchResult:
    """Time a network of random weights (the time does not depend on them). ``opponents``: "none", "quick" (torch as it
    is, the float twin, the convolutions alone) or "all" (compiled networks too, which takes minutes).

    Raises ``FailedError`` when a packed layer is not equal to torch's, ``MissingError`` without llvmlite."""
    torch.set_num_threads(threads)
    network, images = random_network(spec, batch, seed)
    packed = pack(network, spec, isa, threads)
    talk(f"{name}: checking every layer against torch ...")
    checks = check(packed, network, images)
    require_exact(checks)
    with torch.inference_mode():
        contenders: dict[str, Run] = {PACKED: lambda: packed(images)}
        missing: dict[str, str] = {}
        started = time.perf_counter()
        if opponents != "none":
            contenders |= _in_torch(network, images, missing)
        if opponents == "all":
            contenders |= _compiled(network, images, missing, talk, name)
        compile_seconds = time.perf_counter() - started if opponents == "all" else 0.0
        alone, missing_convs = conv_runs(network, images) if opponents != "none" else ({}, {})
        talk(f"{name}: timing {len(contenders)} ways, {runs} runs each ...")
        samples, parts = _timed(name, packed, images, contenders, alone, runs, counting)
    return _result(name, packed, batch, checks, samples, parts, {**missing, **missing_convs}, compile_seconds)


def bench_file(
    name: str,
    packed: PackedNetwork,
    *,
    batch: int = 1,
    runs: int = 15,
    seed: int = 0,
    counting: Callable[[str], AbstractContextManager[Counting]] = lambda _: nullcontext(lambda *_: None),
) -> BenchResult:
    """Time the runner of a packed file, which has no torch network to be held against: random images, from ``seed``."""
    torch.set_num_threads(packed.threads)
    images = torch.randn(batch, *packed.spec.input_shape, generator=torch.Generator().manual_seed(seed))
    with torch.inference_mode():
        samples, parts = _timed(name, packed, images, {PACKED: lambda: packed(images)}, {}, runs, counting)
    return _result(name, packed, batch, [], samples, parts, {}, 0.0)


def bench_way(
    name: str,
    way: str,
    network: Callable[[Tensor], object],
    spec: ArchSpec,
    *,
    batch: int = 1,
    threads: int = 1,
    runs: int = 15,
    seed: int = 0,
    counting: Callable[[str], AbstractContextManager[Counting]] = lambda _: nullcontext(lambda *_: None),
) -> Timed:
    """Time whatever runs a file (``way`` names it): random images, from ``seed``."""
    images = torch.randn(batch, *spec.input_shape, generator=torch.Generator().manual_seed(seed))
    with torch.inference_mode(), counting(f"{name}: rounds") as counter:
        samples = in_turns({way: lambda: network(images)}, runs, counter)
    size = count_spec(spec).total.size_bytes
    return Timed(name, spec.archid, spec.input_shape, batch, threads, samples, {}, 0.0, size)


def _timed(
    name: str,
    packed: PackedNetwork,
    images: Tensor,
    contenders: Mapping[str, Run],
    alone: Mapping[str, Run],
    runs: int,
    counting: Callable[[str], AbstractContextManager[Counting]],
) -> tuple[dict[str, Samples], tuple[PartTime, ...]]:
    """All ways in turns, packed part by part, and the convolutions alone."""
    taken: list[PartSeconds] = []
    by_part: Run = lambda: taken.append(packed.part_seconds(images))  # noqa: E731
    packed(images)  # whose maps the convolutions alone are done on
    alone = {PACKED: packed.convolutions(), **alone}
    in_full = {**contenders, _PARTS: by_part, **{f"{_ALONE}{format_}": run for format_, run in alone.items()}}
    with counting(f"{name}: rounds") as counter:
        samples = in_turns(in_full, runs, counter)
    parts = _part_times(taken[2 * WARM_UP + 1 :: 2], packed.spec, len(images))  # as in_turns takes them
    return samples, parts


@torch.no_grad()
def random_network(spec: ArchSpec, batch: int, seed: int) -> tuple[nn.Module, Tensor]:
    """A network in eval mode and images, both from ``seed``; its batch norms have scales of both signs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build(spec)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.normal_()
                module.bias.normal_(0, 0.3)
                module.momentum = None  # statistics of what it sees next
                module.reset_running_stats()
        network(torch.randn(2, *spec.input_shape))
        return network.eval(), torch.randn(batch, *spec.input_shape)


def _in_torch(network: nn.Module, images: Tensor, missing: dict[str, str]) -> dict[str, Run]:
    last = plain(network)
    twin = float_twin(network)
    behind = images.contiguous(memory_format=torch.channels_last)
    found: dict[str, Run] = {
        "eager": lambda: network(images),
        "eager, channels last": lambda: last(behind),
        "float twin, channels last": lambda: twin(behind),
    }
    try:
        integers = int8(network)
        integers(behind)
        found["binary convs in int8"] = lambda: integers(behind)
    except (RuntimeError, AttributeError, NotImplementedError) as error:
        missing["binary convs in int8"] = str(error).splitlines()[0]
    return found


def _compiled(network: nn.Module, images: Tensor, missing: dict[str, str], talk: Talk, name: str) -> dict[str, Run]:
    found: dict[str, Run] = {}
    ways: tuple[tuple[str, Callable[[nn.Module], nn.Module], torch.dtype], ...] = (
        ("compiled fp32", plain, torch.float32),
        ("compiled bf16", plain, torch.bfloat16),
        ("compiled, binary convs in int8", int8, torch.float32),
        ("float twin, compiled fp32", float_twin, torch.float32),
    )
    for number, (way, make, dtype) in enumerate(ways, start=1):
        talk(f"{name}: compiling {number}/{len(ways)}: {way} (about a minute) ...")
        try:
            found[way] = compiled(make(network), images, dtype)
        except Exception as error:  # torch._dynamo raises what its compilers raise
            heed_interrupt()
            missing[way] = str(error).strip().splitlines()[0][:200]
    return found


def _part_times(taken: Sequence[PartSeconds], spec: ArchSpec, batch: int) -> tuple[PartTime, ...]:
    macs = {row.name: row.binary_macs for row in count_spec(spec).rows("stage")}

    def median(part: str, kind: Kind) -> float:
        return statistics.median(seconds.get((part, kind), 0.0) for seconds in taken)

    return tuple(
        PartTime(part, median(part, "binary"), median(part, "pack"), median(part, "float"), macs.get(part, 0) * batch)
        for part in dict.fromkeys(part for part, _ in taken[0])
    )


def _result(
    name: str,
    packed: PackedNetwork,
    batch: int,
    checks: list[LayerCheck],
    samples: dict[str, Samples],
    parts: tuple[PartTime, ...],
    missing: dict[str, str],
    compile_seconds: float,
) -> BenchResult:
    spec, total = packed.spec, count_spec(packed.spec).total
    alone = {
        key.removeprefix(_ALONE): taken.cpu_median if packed.threads == 1 else taken.median
        for key, taken in samples.items()
        if key.startswith(_ALONE)
    }
    bits = sum(count * weight_bits for weight_bits, count in total.weights)
    floats = sum(count * 32 for _, count in total.weights)
    return BenchResult(
        arch=name,
        archid=spec.archid,
        input_shape=spec.input_shape,
        batch=batch,
        threads=packed.threads,
        isa=packed.isa.name,
        checked_layers=len({layer.layer for layer in checks}),
        checked_values=sum(layer.values for layer in checks),
        runs={key: taken for key, taken in samples.items() if not key.startswith((_PARTS, _ALONE))},
        parts=parts,
        binary_seconds=alone.pop(PACKED),
        conv_seconds=alone,
        num_convs=packed.num_convs,
        left=packed.left,
        missing=missing,
        compile_seconds=compile_seconds,
        size_bytes=total.size_bytes,
        twin_size_bytes=total.size_bytes + (floats - bits) // 8,
    )
