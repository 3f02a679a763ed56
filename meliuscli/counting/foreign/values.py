"""What the values of the operands say about their bits. The input is random, the weights are as they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from torch import nn

from meliuscli.counting.counts import FLOAT_BITS
from meliuscli.counting.foreign.bits import FLOAT, OwnBits, bits_text, weight_of
from meliuscli.counting.foreign.verdicts import Note
from meliuscli.counting.foreign.watch import Watch

_WEIGHT_BITS = {2: 1, 3: 2}
"""By levels (see ``Seen.levels``): three values take two bits."""
_ACTIVATION_BITS = {1: 1, 2: 1, 3: 1, 4: FLOAT_BITS}
"""A zero among the activations is most often torch's sign of zero, where a sign is meant: one bit, with a doubt."""
_VALUES = {3: "three values", 4: "more than two values"}


def as_seen(bits: OwnBits, watch: Watch) -> OwnBits:
    """What counts is what is seen: a layer that goes for binary has the bits that its operands take.

    Two exceptions. What the user names is as the user says; and where a layer's weights take more than three values
    they may be yet to be binarized (BNext's are, slowly, in training), so that the rule stands, with a doubt."""
    seen = {
        name: (_WEIGHT_BITS[weights], _ACTIVATION_BITS[activations])
        for name, was in bits.bits.items()
        for weights, activations in [_levels(name, bits, watch)]
        if was == (1, 1) and name not in bits.by_user and weights in _WEIGHT_BITS and activations
    }
    changed = {name: now for name, now in seen.items() if now != (1, 1)}
    words = {
        name: f"{bits_text(now)} {bits.reasons[name].removeprefix('binary ')}, but {_many(*_levels(name, bits, watch))}"
        for name, now in changed.items()
    }
    return replace(bits, bits={**bits.bits, **changed}, reasons={**bits.reasons, **words}, changed=frozenset(changed))


def _levels(name: str, bits: OwnBits, watch: Watch) -> tuple[int, int]:
    """Of the module, or, where it multiplies nothing itself, of the others of its layer."""
    if name in watch.seen and any(watch.seen[name].levels):
        return watch.seen[name].levels
    layer = bits.layers[name]
    others = [watch.seen[other].levels for other, of in bits.layers.items() if of == layer and other in watch.seen]
    return max((w for w, _ in others), default=0), max((a for _, a in others), default=0)


def _many(weights: int, activations: int) -> str:
    """``its weights take three values, its activations more than two values``: of those that take more than two."""
    if weights == activations:
        return f"its weights and activations take {_VALUES[weights]}"
    levels = {"weights": weights, "activations": activations}
    return " and ".join(f"its {operand} take {_VALUES[n]}" for operand, n in levels.items() if n in _VALUES)


def value_notes(parts: Mapping[str, nn.Module], watch: Watch, bits: OwnBits) -> Iterator[Note]:
    """Do the operands of binary MACs take two values, and those of float ones more?"""
    for name, part in parts.items():
        what, counts = type(part).__name__, bits(name, part)
        weights, activations = watch.seen[name].levels if name in watch.seen else (0, 0)
        if counts == (1, 1) and activations == 3 and weights < 3:
            text = "counts as binary, but zero is a third value of its activations (torch.sign of 0, or padding)"
            yield Note(what, text, name, doubt=True)
        elif counts == (1, 1) and max(weights, activations) > 2:
            yield Note(what, f"counts as binary, but {_many(weights, activations)} here", name, doubt=True)
        elif name in bits.changed and weights == 3:
            text = f"goes for binary, but counts as {bits_text(counts)}: {_many(weights, activations)}"
            yield Note(what, text, name, doubt=True)
        elif counts == FLOAT and (weights, activations) == (2, 2):
            text = "counts as float, but its weights and activations take two values: --binary counts it as binary"
            yield Note(what, text, name, doubt=True)
        if name in bits.ignored and (weight_of(part) is not None or weights):
            text = f"{bits.ignored[name]}: no bits (1 to 32), ignored; counts as {bits_text(counts)}"
            yield Note(what, text, name, doubt=True)
