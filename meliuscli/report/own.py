"""What is to be said beside the count of a user's own module: the bits of its layers and why, and what may be wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meliuscli.counting.conventions import Convention
    from meliuscli.counting.counts import Count
    from meliuscli.counting.foreign import Finding, OwnCount
    from meliuscli.counting.foreign.bits import Ruling


LEAST = 0.05
"""The part of the MACs that a convention may leave out of a module of one's own without a word."""


def own_object(own: OwnCount, assumes_much: bool, left_out: Sequence[str]) -> dict[str, Any]:
    """Keys that the JSON of ``count`` has for a module of one's own. ``doubts``: why the network may cost more than is
    said, what the convention has ``left_out`` before all; empty where what is assumed changes less than 5 %
    (``assumes_much``) and nothing may hide MACs."""
    assumed = {ruling.doubt for rulings in own.rulings.values() for ruling in rulings if ruling.doubt}
    return {
        "recognised": own.recognised,
        "layers": [_layer_object(name, ruling) for name, rulings in own.rulings.items() for ruling in rulings],
        "doubts": [
            *left_out,
            *(_line(v) for v in own.verdicts if v.doubt and (assumes_much or v.verdict not in assumed)),
        ],
        "verdicts": [
            {
                "what": verdict.what,
                "times": verdict.times,
                "modules": list(verdict.modules),
                "verdict": verdict.verdict,
                "doubt": verdict.doubt,
            }
            for verdict in own.verdicts
        ],
    }


def _layer_object(name: str, ruling: Ruling) -> dict[str, Any]:
    """The bits of products of a layer: weights and activations, why, and what they would be, were the doubts true."""
    bits, dearer = ("x".join(map(str, pair)) for pair in (ruling.bits, ruling.dearer))
    return {
        "name": name,
        "bits": bits,
        "why": ruling.why,
        "doubts": [ruling.doubt] * bool(ruling.doubt),
        "dearer": dearer,
    }


def own_lines(own: OwnCount) -> tuple[str, ...]:
    """Why layers count at their bits, a line a reason; then verdicts, doubts first."""
    layers: dict[str, list[str]] = {}
    for name, reason in own.recognised.items():
        layers.setdefault(reason, []).append(name)
    recognised = [f"{_layers(names)} as {reason}" for reason, names in layers.items()]
    if not own.count.layers:
        recognised = ["nothing to count: no layer has MACs or parameters"]
    elif not recognised:
        recognised = ["all layers count as float: none is seen to have fewer bits (--bits PATTERN=WxA says otherwise)"]
    return (*recognised, *map(_line, own.verdicts))


def left_out(total: Count, convention: Convention) -> list[str]:
    """A line where more of the MACs than ``LEAST`` are in linear layers and the convention counts none."""
    macs = sum(n for _, n in total.macs)
    if convention.linear or total.linear_macs <= LEAST * macs:
        return []
    return [
        f"doubt: convention {convention.name} leaves out linear layers, {100 * total.linear_macs / macs:.1f} % of the"
        " MACs here: --convention full counts them"
    ]


def doubts(own: OwnCount) -> list[str]:
    """The verdicts because of which the count may be wrong."""
    return [_line(verdict) for verdict in own.verdicts if verdict.doubt]


def _line(verdict: Finding) -> str:
    return f"{'doubt: ' if verdict.doubt else ''}{verdict.sentence}"


def _layers(names: Sequence[str]) -> str:
    from meliuscli.counting.foreign.bits import some  # loads torch, as what is counted has

    number = len(names)
    return f"{number} layer{'s' * (number != 1)} ({some(names, 1)}) count{'s' * (number == 1)}"
