"""The parts that a dense network is made of, and the smallest network that has one: what its time is added up from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from meliuscli.arch.families.dense import DenseFamilySpec, MeliusNetSpec
from meliuscli.arch.narrowing import narrow
from meliuscli.arch.plan import HEAD, STEM

Part = tuple[str | int, ...]
"""What a time depends on: a kind, then numbers (see ``parts``)."""
CALL = "call"
WORD = 32
"""Channels that are packed together."""


def parts(spec: DenseFamilySpec) -> Iterator[Part]:
    """The parts of a network, in order:

    ``call: input size and channels``, what is done to an image first · ``stem, its kind, width, input size and channels``
    · ``dense`` and ``improvement``: ``channels seen (rounded up to whole words), growth, map size, dilation`` ·
    ``transition: channels, target, groups, map size, pools`` · ``head: channels, classes, map size``."""
    return (part for _, part in staged_parts(spec))


def staged_parts(spec: DenseFamilySpec) -> Iterator[tuple[str, Part]]:
    """The same, each with the stage that counts have it in; ``call`` is in none, and is one of its own."""
    yield CALL, (CALL, spec.input_size, spec.input_channels)
    yield STEM, (STEM, spec.stem, spec.stem_channels, spec.input_size, spec.input_channels)
    for number, stage in enumerate(spec.stages(), 1):
        for unit in stage.units:
            seen = narrow(unit.channels, 1, WORD)
            yield f"stage{number}", (unit.kind, seen, unit.growth, unit.size, unit.dilation)
        if stage.transition is not None:
            _, channels, target, groups, size, pools = stage.transition
            yield f"transition{number}", ("transition", channels, target, groups, size, int(pools))
    yield HEAD, (HEAD, stage.channels, spec.num_classes, stage.size)


def probe(part: Part) -> tuple[MeliusNetSpec, str]:
    """The smallest network with this part, and the layer that its steps are for."""
    kind, *numbers = part
    fields: dict[str, Any] = {
        "family": "meliusnet",
        "stem": "thumbnail",
        "num_blocks": (1,),
        "growth_rate": 1,
        "num_classes": 2,
    }
    match kind, *numbers:
        case "call", size, channels:
            fields |= {"stem_channels": 1, "input_size": size, "input_channels": channels}
            name = ""
        case "stem", stem, width, size, channels:
            fields |= {"stem": stem, "stem_channels": width, "input_size": size, "input_channels": channels}
            name = STEM
        case "dense", seen, growth, size, dilation:
            fields |= {"stem_channels": seen, "growth_rate": growth, "input_size": size, "dilation": dilation}
            name = "stage1.block1.dense"
        case "improvement", int(seen), int(growth), size, dilation:
            fields |= {"stem_channels": seen - growth, "growth_rate": growth, "input_size": size, "dilation": dilation}
            name = "stage1.block1.improvement"
        case "transition", int(channels), target, groups, size, pools:
            fields |= {"num_blocks": (1, 1), "stem_channels": channels - 1, "transition_channels": (target,)}
            fields |= {"groups": groups, "input_size": size, "dilation": (1, 1 if pools else 2)}
            name = "transition1"
        case "head", int(channels), classes, size:
            fields |= {"stem_channels": channels - 1, "num_classes": classes, "input_size": size}
            name = HEAD
        case _:
            raise ValueError(f"no such part: {part}")
    return MeliusNetSpec.model_validate(fields), name
