"""Beliefs about ImageNet top-1 as a table and as JSON. The evidence, and numpy with it, is loaded when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from meliuscli.counting.conventions import MELIUS
from meliuscli.report.answers import Answer
from meliuscli.report.counted import Counted
from meliuscli.report.tables import Column, Table
from meliuscli.units import format_count

if TYPE_CHECKING:
    from meliuscli.evidence.belief import Belief


def predict_answer(networks: Sequence[Counted], beliefs: Sequence[Belief]) -> Answer:
    """What networks are believed to reach."""
    from meliuscli.evidence.belief import sentence

    table = predict_table(networks, beliefs)
    return Answer((table,), lambda: {"networks": list(table.records), "evidence": sentence()})


def predict_table(networks: Sequence[Counted], beliefs: Sequence[Belief]) -> Table:
    """A row a network: its costs, what it is believed to reach, and what it reached where that is known."""
    from meliuscli.evidence.belief import sentence
    from meliuscli.evidence.runs import SOURCE

    records = [predict_object(network, belief) for network, belief in zip(networks, beliefs, strict=True)]
    return Table(
        "Believed ImageNet top-1",
        (
            Column("network", numeric=False),
            Column("OPs"),
            Column("params"),
            Column("believed top-1 %"),
            Column("reached %"),
        ),
        tuple(
            (
                network.name,
                format_count(record["ops"]),
                format_count(record["params"]),
                str(belief),
                "" if record["reached_top1"] is None else f"{record['reached_top1']:.2f}",
            )
            for network, belief, record in zip(networks, beliefs, records, strict=True)
        ),
        notes=(*_far_notes(networks), sentence(), f"reached: by the last epoch of the run in the evidence ({SOURCE})"),
        records=tuple(records),
    )


def _far_notes(networks: Sequence[Counted]) -> list[str]:
    from meliuscli.evidence.belief import outside

    beyond = {network.name: outside(network.spec) for network in networks if network.spec is not None}
    return [
        f"{name} lies outside the range of the runs of its family with its stem, in {', '.join(numbers)}: how wide its interval has to be is"
        " a judgement"
        for name, numbers in beyond.items()
        if numbers
    ]


def predict_object(network: Counted, belief: Belief) -> dict[str, Any]:
    """One network as JSON."""
    from meliuscli.evidence.belief import LEVEL, known_result, outside

    assert network.spec is not None
    total = network.count.total
    return {
        "network": network.name,
        "archid": network.spec.archid,
        "ops": MELIUS.derive(total).ops,
        "params": total.params,
        "believed_top1": belief.top1,
        "believed_low": belief.low,
        "believed_high": belief.high,
        "level": LEVEL,
        "outside": list(outside(network.spec)),
        "reached_top1": known_result(network.spec),
    }


def believed_object(network: Counted) -> dict[str, Any] | None:
    """``believed`` in the objects of ``compare``: None where the evidence does not cover the network."""
    from meliuscli.errors import BadInputError
    from meliuscli.evidence.belief import believe

    try:
        return None if network.spec is None else dict(believe([network.spec])[0].fields())
    except BadInputError:
        return None
