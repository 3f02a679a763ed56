"""What a study keeps low: its budget checked, its latencies measured before anything is trained."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meliuscli.errors import BadInputError, MissingError
from meliuscli.search.cost import OPS, Cost
from meliuscli.work.listener import SILENT, Listener

if TYPE_CHECKING:
    from meliuscli.search.settings import Settings
    from meliuscli.search.space import SearchSpace

SECONDS_BETWEEN_LINES = 10
TABLE = "latency.jsonl"
"""A study's own table: what it once took for true stays so."""
START_AGAIN = "start the study again with --force"


def check_budget(space: SearchSpace, budget: float, cost: Cost) -> None:
    """Raise ``BadInputError`` where no network of the space is within the budget."""
    needed = cost.of(space.smallest)
    if budget < needed:
        least = f"{needed:.0f}" if cost is OPS else f"{cost.text(1.01 * needed)} {cost.unit}"
        raise BadInputError(
            f"--budget {cost.text(budget)} {cost.unit}: the smallest network of this space needs {cost.text(needed)} {cost.unit}",
            f"raise the budget to {least} or more, or allow smaller values in the space",
        )


def measure_latencies(
    space: SearchSpace, settings: Settings, listener: Listener = SILENT
) -> tuple[dict[str, str], dict[str, Any]]:
    """The study's file of latencies, and what its origin says of them: predictions held against direct measurements."""
    from meliuscli.packed.isa import choose_isa
    from meliuscli.packed.latency import LatencyTable
    from meliuscli.search.latency import check_predictions, latency_cost
    from meliuscli.search.proposals import Proposer

    told = time.monotonic()

    def measured(count: int) -> None:
        nonlocal told
        if time.monotonic() - told > SECONDS_BETWEEN_LINES:
            told = time.monotonic()
            listener.talk(f"{count:,} parts are measured (a space of a few widths has some thousands) ...")

    table = LatencyTable(choose_isa(), measured=measured)
    listener.talk(f"measuring latencies with {table.isa.name} kernels; {len(table)} parts are known from {table.path}")
    listener.talk(
        "every part is measured once for all studies; Ctrl-C keeps what is measured, and --timeout begins behind it ..."
    )
    if (jobs := _jobs()) > 1:
        listener.talk(f"note: the machine is busy ({jobs:.1f} jobs running), so latencies may come out too high")
    with listener.status("measuring"):
        cost = latency_cost(table)
        check_budget(space, settings.budget, cost)
        candidates = Proposer(space, settings.budget, settings.seed, cost).pool
        predictions = check_predictions(table, [space.smallest, *candidates])
    listener.talk(predictions.sentence)
    if not predictions.trustworthy:
        listener.talk(f"warning: that is much; when the machine is quiet, delete {table.path} and begin again")
    content = table.content()
    # The study may add times to its table, but goes on with those that it began with.
    began = {"table_bytes": len(content.encode()), "table_sha256": hashlib.sha256(content.encode()).hexdigest()}
    return {TABLE: content}, {"latency": {"sentence": predictions.sentence, **predictions.fields(), **began}}


def _jobs() -> float:
    """Jobs that ran or waited over the last minute, where the system tells."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def study_cost(directory: Path, settings: Settings, where: dict[str, Any]) -> Cost:
    """OPs, or latency by the study's own table. Raises ``MissingError`` where that is gone, ``BadInputError`` where it was
    changed or measured on another machine. ``where`` is the study's origin."""
    if settings.objective == "ops":
        return OPS
    path = directory / TABLE
    if not path.is_file():
        raise MissingError(f"{path}: no such file, and the study's latencies are lost", START_AGAIN)
    from meliuscli.packed.isa import choose_isa
    from meliuscli.packed.latency import LatencyTable
    from meliuscli.search.latency import latency_cost

    about = where.get("latency", {})
    began = path.read_bytes()[: about.get("table_bytes", 0)]
    if hashlib.sha256(began).hexdigest() != about.get("table_sha256"):
        raise BadInputError(f"{path}: not the table that the study began with", START_AGAIN)
    return latency_cost(LatencyTable(choose_isa(), path, way_out=START_AGAIN))
