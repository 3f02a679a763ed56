"""What a command line asks of a search, read from its options."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import typer

from meliuscli.cli.console import is_given
from meliuscli.errors import BadInputError
from meliuscli.units import parse_bytes, parse_count, parse_duration, parse_latency
from meliuscli.work.folders import STUDY

if TYPE_CHECKING:
    from meliuscli.search.begin import Asked


def _parse_lag(lag: str | None) -> int | Literal["default"] | None:
    if lag is None:
        return "default"
    if lag == "none":
        return None
    if not lag.isdigit() or int(lag) == 0:
        raise BadInputError(f"--lag {lag}: must be a number from 1 on, or none")
    return int(lag)


def ask_for_budget(resume: bool, latency: bool, reports: Path) -> NoReturn:
    """Raise ``BadInputError`` for a search without a budget, or without a study to go on with."""
    if resume:
        raise BadInputError("--resume: which study?", STUDY.named_in(reports))
    raise BadInputError("--budget is missing", f"for example --budget {'5ms' if latency else '5e8'}")


def asked_search(context: typer.Context, budgets: tuple[float, ...], latency: bool) -> Asked:
    """What the command line asks for."""
    from meliuscli.search.begin import Asked

    given = context.params
    parsers = {"max_size": parse_bytes, "max_params": parse_count, "max_ram": parse_bytes, "max_flash": parse_bytes}
    limits: dict[str, Any] = {
        name: parse(given[name], f"--{name.replace('_', '-')}")
        for name, parse in parsers.items()
        if given[name] is not None
    }
    timeout = given["trial_timeout"]
    return Asked(
        budgets=budgets,
        space=given["space"],
        objective="latency" if latency else "ops",
        maximises=given["objective"],
        **limits,
        lag=_parse_lag(given["lag"]),
        trial_timeout=None if timeout is None else parse_duration(timeout, "--trial-timeout"),
        **{name: given[name] for name in AS_GIVEN},
    )


AS_GIVEN = (
    *("trials", "seed", "sampler", "finalists", "final_seeds", "dataset", "data", "skip_bad", "transfer", "device"),
)
"""Options that ``Asked`` has under the same name and as they are."""


def parse_budgets(budget: str, latency: bool) -> tuple[float, ...]:
    """All budgets, the smallest first."""
    if not latency and re.search(r"[0-9]\s*[mu]?s\s*(,|$)", budget):
        raise BadInputError(f"--budget {budget}: a time is a budget of latency", "add --objectives accuracy,latency")
    if not all(part.strip() for part in budget.split(",")):
        raise BadInputError(f"--budget {budget!r}: one of its parts is empty", "write several as 1.5e8,2e8")
    parse = parse_latency if latency else parse_count
    return tuple(sorted({parse(part, "--budget") for part in budget.split(",")}))


def given_anew(context: typer.Context, asked: Asked) -> dict[str, Any]:
    """What the command line asks of a study that was made before: the values of ``asked`` that are on it."""
    names = {"budget": "budgets", "objectives": "objective", "objective": "maximises"}
    given = {names.get(name, name) for name in context.params if is_given(context, name)}
    values = {field.name: getattr(asked, field.name) for field in fields(asked) if field.name in given}
    if "space" in values:
        values["space"] = Path(asked.space).stem
    if "device" in values:
        from meliuscli.training.execution import find_device

        values["device"] = find_device(asked.device)
    return values
