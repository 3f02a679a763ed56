"""What is to be said beside the count of a user's own module: what was recognised, and what fvcore cannot see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meliuscli.counting.conventions import Convention
    from meliuscli.counting.counts import Count
    from meliuscli.counting.foreign import OwnCount, Verdict

HARMLESS = "no MACs"
"""The verdict of operations that need no line of their own."""


def own_object(own: OwnCount) -> dict[str, Any]:
    """Keys that the JSON of ``count`` has for a module of one's own."""
    return {
        "recognised": dict(own.recognised),
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


def own_lines(own: OwnCount) -> tuple[str, ...]:
    """Why layers count at their bits, a line a reason; then verdicts, doubts first, operations without MACs in one."""
    layers: dict[str, list[str]] = {}
    for name, reason in own.recognised.items():
        layers.setdefault(reason, []).append(name)
    recognised = [f"{_layers(len(names))} {reason}: {_first(names)}" for reason, names in layers.items()]
    if not own.count.layers:
        recognised = ["nothing to count: no layer has MACs or parameters"]
    elif not recognised:
        recognised = ["all layers count as float: none is recognised as binary (--binary PATTERN names those that are)"]
    harmless = [verdict.what.removeprefix("aten::") for verdict in own.verdicts if verdict.verdict == HARMLESS]
    listed = [f"not seen by fvcore, without MACs: {', '.join(sorted(set(harmless)))}"] if harmless else []
    return (*recognised, *(_line(verdict) for verdict in own.verdicts if verdict.verdict != HARMLESS), *listed)


def left_out(total: Count, convention: Convention) -> list[str]:
    """A line where most of the MACs are in linear layers and the convention counts none."""
    macs = sum(n for _, n in total.macs)
    if convention.linear or 2 * total.linear_macs <= macs:
        return []
    return [
        f"doubt: convention {convention.name} leaves out linear layers, {100 * total.linear_macs / macs:.1f} % of the"
        " MACs here: --convention full counts them"
    ]


def doubts(own: OwnCount) -> list[str]:
    """The verdicts because of which the count may be wrong."""
    return [_line(verdict) for verdict in own.verdicts if verdict.doubt]


def _line(verdict: Verdict) -> str:
    where = f" in {_first(verdict.modules)}" if any(verdict.modules) else ""
    return f"{'doubt: ' if verdict.doubt else ''}{verdict.what}{where}: {verdict.verdict}"


def _layers(count: int) -> str:
    return f"{count} layer{'s' * (count != 1)}"


def _first(names: Sequence[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0] or 'the network itself'}{more}"
