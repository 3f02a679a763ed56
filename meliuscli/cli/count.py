"""``meliuscli count``: what one network costs."""

from __future__ import annotations

from typing import Annotated

import typer

from meliuscli.cli import options
from meliuscli.cli.console import answer, give, status, talk, talk_of
from meliuscli.cli.networks import count_any, is_own, the_one, words_of
from meliuscli.counting.counts import By
from meliuscli.errors import BadInputError, FailedError, MissingError
from meliuscli.memory import lacks_memory
from meliuscli.report.count import count_answer, warnings
from meliuscli.report.counted import Counted, View, make_view, shape_text
from meliuscli.report.own import left_out
from meliuscli.runs import REPORTS
from meliuscli.units import format_count, format_mib, parse_bytes, parse_count


def count(
    network_: options.Network = None,
    arch_: options.Arch = None,
    set_: options.Set = None,
    by: Annotated[By, typer.Option("--by", help="One row a stage, a block or a layer.")] = "stage",
    convention: options.ConventionName = "melius",
    float_bits: options.FloatBits = None,
    bn_params: options.BnParams = None,
    input_: options.Inputs = None,
    binary: options.Binary = None,
    bits: options.Bits = None,
    verify: options.Verify = True,
    max_ops: Annotated[
        str | None, typer.Option("--max-ops", help="Exit 1 when OPs are above this (5e8, 500M).", show_default=False)
    ] = None,
    max_size: Annotated[
        str | None, typer.Option("--max-size", help="Exit 1 when the size is above this (4MiB).", show_default=False)
    ] = None,
    max_ram: Annotated[
        str | None, typer.Option("--max-ram", help="Exit 1 when RAM is above this (256KiB).", show_default=False)
    ] = None,
    max_flash: Annotated[
        str | None, typer.Option("--max-flash", help="Exit 1 when flash is above this (1MiB).", show_default=False)
    ] = None,
    reports: options.Reports = REPORTS,
    fmt: options.OutputFormat = "table",
    output: options.Output = None,
) -> None:
    """Count binary and float operations, weights and size of a network, exactly.

    Two independent roads: arithmetic on the spec, printed at once, and an fvcore trace of the real torch module.
    A module of your own (FILE.py:FACTORY) has the second road only.

    Example: meliuscli count meliusnet22 --by block"""
    arch = the_one(network_, arch_)
    view = make_view(convention, float_bits, bn_params)
    limits = _Limits(view, max_ops, max_size, max_ram, max_flash)
    words = words_of(bits, binary)
    if (max_ram or max_flash) and is_own(arch):
        raise BadInputError(f"{'--max-ram' if max_ram else '--max-flash'}: is for networks of ours; {arch} is a module")
    if words and not is_own(arch):
        option = words[0].split()[0]
        raise BadInputError(f"{option} is for modules of your own (FILE.py:FACTORY); {arch} knows its binary layers")
    network = count_any(arch, set_ or [], words, input_ or [], view.storage, reports)
    verify = verify and not is_own(arch)
    talk_of(fmt, warnings(network, view))
    at_first = verify and fmt == "json"  # which says whether it is verified
    problems = _verify(network, view) if at_first else []
    give(count_answer(network, by, view, not problems if at_first else None), fmt, output)
    if verify and not at_first:
        problems = _verify(network, view)
        if not problems:
            from meliuscli.counting.traced import ROADS, best_road

            line = f"verified: {ROADS[best_road()]} agrees on every layer"
            answer(f"{line}\n", None) if fmt == "table" and output is None else talk(line)
    problems += limits.problems(network)
    if problems:
        raise FailedError("\n".join(problems))


class _Limits:
    """``--max-ops``, ``--max-size``, ``--max-ram`` and ``--max-flash``, read before any work."""

    def __init__(
        self, view: View, max_ops: str | None, max_size: str | None, max_ram: str | None, max_flash: str | None
    ) -> None:
        self._view = view
        self._ops = None if max_ops is None else parse_count(max_ops, "--max-ops")
        self._size = None if max_size is None else parse_bytes(max_size, "--max-size")
        self._ram = None if max_ram is None else parse_bytes(max_ram, "--max-ram")
        self._flash = None if max_flash is None else parse_bytes(max_flash, "--max-flash")
        if self._ops is not None and not view.convention.unit:
            raise BadInputError(f"--max-ops: the convention {view.convention.name} has no total")

    def problems(self, network: Counted) -> list[str]:
        found, total = self._ops_problems(network), network.count.total
        if self._size is not None and total.size_bytes > self._size:
            size = f"{total.size_bytes:,} bytes ({format_mib(total.size_bytes)})"
            found.append(f"{size} are more than --max-size {self._size:,} bytes")
        if (memory := network.memory(self._view.storage)) is not None:
            limits = (
                ("RAM", "--max-ram", memory.ram_bytes, self._ram),
                ("flash", "--max-flash", memory.flash_bytes, self._flash),
            )
            for what, option, needed, limit in limits:
                if limit is not None and needed > limit:
                    how = "" if memory.is_c else " (an estimate: no export writes this network as C)"
                    found.append(f"{needed:,} bytes of {what}{how} are more than {option} {limit:,} bytes")
        return found

    def _ops_problems(self, network: Counted) -> list[str]:
        """The plain total above the limit, else one of a module of one's own that is dearer by a doubt."""
        convention, unit = self._view.convention, self._view.convention.unit
        totals = [("", convention.derive(network.count.total, self._view.float_bits).ops)]
        if network.own is not None:
            totals.append((", were the doubts true,", self._view.dearest_ops(network.own)))
            if left_out(network.count.total, convention):
                what = f", with the linear layers that convention {convention.name} leaves out,"
                totals.append((what, self._view.ops_with_linear(network.own)))
        for what, ops in totals:
            if self._ops is not None and ops is not None and ops > self._ops:
                return [f"{ops:,} {unit} ({format_count(ops)}){what} are more than --max-ops {self._ops:,}"]
        return []


def _verify(network: Counted, view: View) -> list[str]:
    """What the trace of the real module says otherwise, a line each; empty when the two roads agree."""
    from meliuscli.counting.footprint import TRACED, require_room
    from meliuscli.counting.traced import differences, trace_module
    from meliuscli.nn.build import build

    assert network.spec is not None
    what = f"tracing {network.name} at {shape_text(network.input_shape)}"
    require_room(network.spec, 1, TRACED, what, "--no-verify counts it without")
    try:
        with status("tracing the torch module"):
            traced = trace_module(build(network.spec), network.spec.input_shape, view.storage)
    except RuntimeError as error:
        if not lacks_memory(error):
            raise
        raise MissingError("too little memory to trace this network", "--no-verify counts it without") from None
    return [
        f"not verified: {d.name} has {d.analytic:,} {d.what} by arithmetic and {d.traced:,} by trace"
        for d in differences(network.count, traced)
    ]
