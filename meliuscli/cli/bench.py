"""``meliuscli bench``: how fast a network really runs on this machine, bit-packed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypedDict

import typer

from meliuscli.arch.spec import ArchSpec
from meliuscli.arch.zoo import NamedArch
from meliuscli.cli import completion, options
from meliuscli.cli.console import give, is_given, talk
from meliuscli.cli.networks import is_own, load_own, load_with_header, own_size, the_one, with_input
from meliuscli.cli.progress import Counter
from meliuscli.counting.counts import Storage
from meliuscli.errors import BadInputError, FailedError
from meliuscli.exchange.headers import FileKind
from meliuscli.results import require_directory
from meliuscli.runs import REPORTS

if TYPE_CHECKING:
    from torch import nn

    from meliuscli.counting.foreign import OwnCount
    from meliuscli.packed.timing import BenchResult, Timed

Opponents = Literal["none", "quick", "all"]
AS_IT_IS: tuple[FileKind, ...] = ("onnx", "c")
"""Files that run without packed kernels of ours."""


class _How(TypedDict):
    """What all measurements share."""

    batch: int
    runs: int
    counting: type[Counter]


def bench(
    context: typer.Context,
    networks: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NETWORK",
            help="Names, TOML files or run:ID of networks, FILE.packed.safetensors, FILE.onnx, a directory of C, or"
            " FILE.py:FACTORY.",
            show_default=False,
            autocompletion=completion.networks,
        ),
    ] = None,
    arch_: Annotated[
        list[str] | None,
        typer.Option("--arch", help="The same as NETWORK; repeatable.", show_default=False),
    ] = None,
    set_: options.Set = None,
    input_: options.Input = None,
    batch: Annotated[int, typer.Option("--batch", min=1, max=1024, help="Images at a time.")] = 1,
    threads: Annotated[int, typer.Option("--threads", min=1, max=256, help="Threads, of ours and of torch.")] = 1,
    opponents: Annotated[
        Opponents,
        typer.Option(
            "--opponents",
            help="quick: torch as it is and the float twin; all: compiled by torch too, minutes a network.",
        ),
    ] = "quick",
    runs: Annotated[int, typer.Option("--runs", min=1, max=1000, help="Timed runs.")] = 15,
    isa: Annotated[
        str | None,
        typer.Option("--isa", help="Instruction set of the packed kernels (the fastest there is).", show_default=False),
    ] = None,
    max_ms: Annotated[
        float | None,
        typer.Option("--max-ms", min=0, help="Exit with 1 where a network takes longer a batch.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**31 - 1, help="Of the random weights and images.")] = 0,
    reports: options.Reports = REPORTS,
    fmt: options.OutputFormat = "table",
    output: options.Output = None,
) -> None:
    """Measure bit-packed inference on this CPU against torch, in turns, after a self-test of every layer.

    The weights are random, on which the time does not depend; a packed file, an ONNX file (in onnxruntime) and a directory of C
    (compiled here, on one thread) are run as they are, and have no torch network to be held against. Needs the extra "packed"
    (pip install 'meliuscli[packed]'). A module of your own (FILE.py:FACTORY) is measured in torch alone, without it: as it is,
    channels last and, with all, compiled.

    Example: meliuscli bench meliusnet22 --input 64 --opponents none"""
    arch = [*(networks or []), *(arch_ or [])] or [the_one(None, None)]
    loaded = {word: load_with_header(word, set_ or [], reports) for word in arch if not is_own(word)}
    named = {word: one for word, (one, _) in loaded.items()}
    kinds = {word: None if header is None else header.kind for word, (_, header) in loaded.items()}
    _refuse_unused(context, arch, kinds)
    specs = {word: _at(input_, one) for word, one in named.items()}
    if output is not None:
        require_directory(output, "--output")
    _refuse_early([(one.name, specs[word]) for word, one in named.items() if kinds[word] not in AS_IT_IS], batch, isa)
    inputs = [] if input_ is None else [input_]
    modules = {word: load_own(word, set_ or [], [], inputs, Storage()) for word in arch if is_own(word)}
    from meliuscli.report.bench import bench_answer

    how: _How = {"batch": batch, "runs": runs, "counting": Counter}
    results: list[Timed] = []
    for word in arch:
        if is_own(word):
            results.append(_in_torch(word, *modules[word], threads, opponents, how))
        elif (kind := kinds[word]) in ("packed", *AS_IT_IS):
            results.append(_file(word, kind, named[word].name, input_, threads, isa, seed, how))
        else:
            results.append(_network(named[word].name, specs[word], threads, isa, opponents, seed, how))
        _warn_when_busy(results[-1])
    give(bench_answer(results), fmt, output)
    _refuse_slow(results, max_ms)


def _refuse_unused(context: typer.Context, arch: Sequence[str], kinds: Mapping[str, FileKind | None]) -> None:
    """Raise ``BadInputError`` for an option of the command line that has no part in measuring one of these."""
    for word in arch:
        kind, own = kinds.get(word), is_own(word)
        runs_as_it_is = kind in ("packed", *AS_IT_IS)
        reasons = {
            "opponents": f"{word} is run as it is, and held against nothing" if runs_as_it_is else None,
            "isa": f"is for packed kernels, and {word} is none of theirs" if own or kind in AS_IT_IS else None,
            "threads": f"{word} is a directory of C, which runs on one thread" if kind == "c" else None,
            "seed": f"{word} has weights and inputs of its own" if own else None,
        }
        for name, reason in reasons.items():
            value = context.params[name]
            if reason is not None and is_given(context, name) and value not in ("none", 1):  # as it is anyway
                raise BadInputError(f"--{name} {value}: {reason}", "leave it out")


def _at(input_: str | None, one: NamedArch) -> ArchSpec:
    return one.spec if input_ is None else with_input(one.spec, input_, one.name)


def _warn_when_busy(result: Timed) -> None:
    from meliuscli.report.bench import busy_warning

    if (warning := busy_warning(result)) is not None:
        talk(f"warning: {warning}", "yellow")


def _in_torch(word: str, module: nn.Module, own: OwnCount, threads: int, opponents: Opponents, how: _How) -> Timed:
    """A module of the user's own."""
    from meliuscli.packed.torch_alone import bench_module

    return bench_module(word, module, own, threads=threads, opponents=opponents, talk=talk, **how)


def _file(
    word: str, kind: FileKind | None, name: str, input_: str | None, threads: int, isa: str | None, seed: int, how: _How
) -> Timed:
    from meliuscli.packed.bench import bench_file, bench_way

    if input_ is not None:
        raise own_size(input_, word)
    if kind == "packed":
        from meliuscli.export.packed import load_packed

        result = bench_file(name, load_packed(Path(word), threads, isa), seed=seed, **how)
        return replace(result, file_bytes=Path(word).stat().st_size)
    from meliuscli.exchange.opened import open_network

    threads = 1 if kind == "c" else threads
    opened = open_network(word, REPORTS, None, threads)
    ((way, run),) = opened.ways.items()
    timed = bench_way(name, way, run, opened.spec, threads=threads, seed=seed, **how)
    return timed if kind == "c" else replace(timed, file_bytes=Path(word).stat().st_size)


def _network(
    name: str, spec: ArchSpec, threads: int, isa: str | None, opponents: Opponents, seed: int, how: _How
) -> BenchResult:
    from meliuscli.packed.bench import bench_network

    return bench_network(name, spec, threads=threads, isa=isa, opponents=opponents, seed=seed, talk=talk, **how)


def _refuse_early(networks: Sequence[tuple[str, ArchSpec]], batch: int, isa: str | None) -> None:
    """Refuse whatever can be refused before minutes are spent on measuring."""
    if not networks:
        return
    from meliuscli.packed.isa import choose_isa

    choose_isa(isa)  # before torch is loaded
    from meliuscli.counting.footprint import COMPARED, require_room

    for name, spec in networks:
        require_room(spec, batch, COMPARED, f"measuring {name} with --batch {batch}", "take a smaller --batch")
    from meliuscli.packed.runner import require_binary

    for _, spec in networks:
        require_binary(spec)


def _refuse_slow(results: Sequence[Timed], max_ms: float | None) -> None:
    """Raise ``FailedError`` for networks that take longer a batch than ``max_ms``, packed or, where they are modules, in
    torch."""
    slow = [result for result in results if max_ms is not None and 1e3 * result.first.median > max_ms]
    if slow:
        took = ", ".join(f"{result.arch} takes {1e3 * result.first.median:.3g} ms" for result in slow)
        raise FailedError(f"{took}, more than --max-ms {max_ms:g}")
