"""``meliuscli count``: what one network costs."""

from __future__ import annotations

from typing import Annotated

import typer

from meliuscli.arch.zoo import NamedArch, load_arch
from meliuscli.cli import options
from meliuscli.cli.console import answer, answer_tables, status, talk
from meliuscli.counting.analytic import count_spec
from meliuscli.counting.conventions import find_convention
from meliuscli.counting.counts import By, NetworkCount
from meliuscli.errors import FailedError, MissingError
from meliuscli.report.count import count_object, count_table
from meliuscli.report.tables import to_json
from meliuscli.units import format_count, format_mib, parse_bytes, parse_count


def count(
    arch: options.Arch,
    set_: options.Set = None,
    by: Annotated[By, typer.Option("--by", help="One row a stage, a block or a layer.")] = "stage",
    convention: options.ConventionName = "melius",
    verify: options.Verify = True,
    max_ops: Annotated[
        str | None, typer.Option("--max-ops", help="Exit 1 when OPs are above this (5e8, 500M).", show_default=False)
    ] = None,
    max_size: Annotated[
        str | None, typer.Option("--max-size", help="Exit 1 when the size is above this (4MiB).", show_default=False)
    ] = None,
    fmt: options.OutputFormat = "table",
    output: options.Output = None,
) -> None:
    """Count binary and float operations, weights and size of a network, exactly.

    Two independent roads: arithmetic on the spec, printed at once, and an fvcore trace of the real torch module."""
    rule = find_convention(convention)
    ops_limit = None if max_ops is None else parse_count(max_ops)
    size_limit = None if max_size is None else parse_bytes(max_size)
    named = load_arch(arch, set_ or [])
    counted = count_spec(named.spec)
    problems: list[str] = []
    if fmt == "json":
        problems = _verify(named, counted) if verify else []
        verified = not problems if verify else None
        answer(to_json(count_object(named, counted, by, rule, verified)), output)
    else:
        answer_tables([count_table(named, counted, by, rule)], fmt, output)
    if verify and fmt != "json":
        problems = _verify(named, counted)
        if not problems:
            line = "verified: the fvcore trace of the torch module agrees on every layer"
            answer(f"{line}\n", None) if fmt == "table" and output is None else talk(line)
    ops, size = rule.derive(counted.total).ops, counted.total.size_bytes
    if ops_limit is not None and ops > ops_limit:
        problems.append(f"{ops:,} OPs ({format_count(ops)}) are more than --max-ops {ops_limit:,}")
    if size_limit is not None and size > size_limit:
        problems.append(f"{size:,} bytes ({format_mib(size)}) are more than --max-size {size_limit:,} bytes")
    if problems:
        raise FailedError("\n".join(problems))


def _verify(named: NamedArch, counted: NetworkCount) -> list[str]:
    """What the trace of the real module says otherwise, a line each; empty when the two roads agree."""
    from meliuscli.counting.traced import differences, trace_module
    from meliuscli.nn.build import build

    try:
        with status("tracing the torch module"):
            traced = trace_module(build(named.spec), named.spec.input_shape)
    except RuntimeError as error:
        if "allocate memory" not in str(error):
            raise
        raise MissingError("too little memory to trace this network", "--no-verify counts it without") from None
    return [
        f"not verified: {d.name} has {d.analytic:,} {d.what} by arithmetic and {d.traced:,} by trace"
        for d in differences(counted, traced)
    ]
