"""``meliuscli bench``: how fast a network really runs on this machine, bit-packed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from meliuscli.arch.spec import ArchSpec
from meliuscli.cli import completion, options
from meliuscli.cli.console import Counter, give, talk
from meliuscli.cli.networks import load_network, the_one, with_input
from meliuscli.errors import BadInputError, FailedError
from meliuscli.exchange.headers import names_packed
from meliuscli.results import require_directory
from meliuscli.runs import REPORTS

if TYPE_CHECKING:
    from meliuscli.packed.timing import BenchResult

Opponents = Literal["none", "quick", "all"]


def bench(
    networks: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NETWORK]...",
            help="Names, TOML files or run:ID of networks, or FILE.packed.safetensors.",
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
        typer.Option(
            "--max-ms", min=0, help="Exit with 1 where a packed network takes longer a batch.", show_default=False
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**31 - 1, help="Of the random weights and images.")] = 0,
    reports: options.Reports = REPORTS,
    fmt: options.OutputFormat = "table",
    output: options.Output = None,
) -> None:
    """Measure bit-packed inference on this CPU against torch, in turns, after a self-test of every layer.

    The weights are random, on which the time does not depend; a packed file is run as it is, and has no torch network to be
    held against. Needs the extra "packed" (pip install 'meliuscli[packed]').

    Example: meliuscli bench meliusnet22 --input 64 --opponents none"""
    arch = [*(networks or []), *(arch_ or [])] or [the_one(None, None)]
    named = [load_network(name, set_ or [], reports) for name in arch]
    specs = [one.spec if input_ is None else with_input(one.spec, input_, one.name) for one in named]
    if output is not None:
        require_directory(output, "--output")
    _refuse_early([one.name for one in named], specs, batch, isa)
    from meliuscli.export.packed import load_packed
    from meliuscli.packed.bench import bench_file, bench_network
    from meliuscli.report.bench import bench_answer, busy_warning

    how = {"batch": batch, "threads": threads, "isa": isa, "opponents": opponents, "runs": runs, "seed": seed}
    results = []
    for word, one, spec in zip(arch, named, specs, strict=True):
        if names_packed(word):
            if input_ is not None:
                raise BadInputError(f"--input {input_}: {word} is for images of its own size", "leave --input out")
            runner = load_packed(Path(word), threads, isa)
            results.append(bench_file(one.name, runner, batch=batch, runs=runs, seed=seed, counting=Counter))
        else:
            results.append(bench_network(one.name, spec, **how, talk=talk, counting=Counter))  # type: ignore[arg-type]
        if (warning := busy_warning(results[-1])) is not None:
            talk(f"warning: {warning}", "yellow")
    give(bench_answer(results), fmt, output)
    _refuse_slow(results, max_ms)


def _refuse_early(names: Sequence[str], specs: Sequence[ArchSpec], batch: int, isa: str | None) -> None:
    """Refuse whatever can be refused before minutes are spent on measuring."""
    from meliuscli.packed.isa import choose_isa

    choose_isa(isa)  # before torch is loaded
    from meliuscli.counting.footprint import COMPARED, require_room

    for name, spec in zip(names, specs, strict=True):
        require_room(spec, batch, COMPARED, f"measuring {name} with --batch {batch}", "take a smaller --batch")
    from meliuscli.packed.runner import require_binary

    for spec in specs:
        require_binary(spec)


def _refuse_slow(results: Sequence[BenchResult], max_ms: float | None) -> None:
    """Raise ``FailedError`` for packed networks that take longer a batch than ``max_ms``."""
    slow = [result for result in results if max_ms is not None and 1e3 * result.packed.median > max_ms]
    if slow:
        took = ", ".join(f"{result.arch} takes {1e3 * result.packed.median:.3g} ms" for result in slow)
        raise FailedError(f"{took}, more than --max-ms {max_ms:g}")
