"""What modules state about their bits: attributes, methods, types and quantizers, under the names of the field."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from meliuscli.counting.counts import FLOAT_BITS
from meliuscli.counting.foreign.source import let_ctrl_c_through

Side = Literal["weight", "activation", "both"]

_BITS = r"(?:q|n|num|quant)?(?:bits?|qtype)(?:width|num)?"
_WEIGHT, _ACTIVATION = r"(?:w|weights?|kernel)", r"(?:a|acts?|activations?|inputs?|in|x)"
_STATE: dict[Side, re.Pattern[str]] = {
    "both": re.compile(_BITS),
    "weight": re.compile(rf"{_WEIGHT}{_BITS}|{_BITS}{_WEIGHT}"),
    "activation": re.compile(rf"{_ACTIVATION}{_BITS}|{_BITS}{_ACTIVATION}"),
}
"""Of attributes, in lower case and without underscores: ``weight_bits``, ``w_bit``, ``num_bits_weight``, ``bitW``,
``weight_qtype``; ``bit_width``, ``num_bits``, ``bits``."""

BINARY_NAME = re.compile(
    r"(?!\w*(?:net\w*|block|stage)$)(?:\w*(?:bin(?!g|s)|binary|binari[sz]ed?|bnn|xnor|sign)|ir|b|bi)(?:scaledstd|block)?"
    r"(?:conv(?:olution)?|linear|dense|fc)\w*"
)
"""Names of binary layers in the field, in lower case and without underscores: ``HardBinaryConv``, ``BinarizeLinear``,
``XnorConv2d``, ``IRConv2d``, ``BConv``. They raise the question and do not answer it."""


class Stated(NamedTuple):
    """Bits, and the class that states them."""

    bits: int
    by: str


class Statement(NamedTuple):
    """Bits of the weights, of the activations, and of whatever the module is about; ``wrong``: attributes that go for
    bits and are none."""

    weight: int | None
    activation: int | None
    both: int | None
    wrong: str = ""


def stated_bits(part: nn.Module) -> Statement:
    found: dict[Side, int] = {}
    wrong = []
    for side, name, value in _attributes(part):
        bits = bits_of(value)
        if bits is not None:
            found.setdefault(side, bits)
        elif side != "both" and value is not None and not isinstance(value, nn.Module):
            wrong.append(f"{name}={value!r:.40}")
    if wrong:
        return Statement(None, None, None, " and ".join(wrong))
    return Statement(found.get("weight"), found.get("activation"), found.get("both"))


def _attributes(thing: Any) -> Iterator[tuple[Side, str, Any]]:
    held = [getattr(thing, where, None) for where in ("__dict__", "_buffers", "_parameters")]
    names = [name for one in held if type(one) is dict for name in one]
    for name in dict.fromkeys([*_names_of(type(thing)), *names]):  # type: ignore[arg-type]
        side = _side(name)
        if side is not None:
            yield side, name, _value(thing, name)


@cache
def _names_of(cls: type) -> tuple[str, ...]:
    return tuple(name for name in dir(cls) if _side(name) is not None)


@cache
def _side(name: str) -> Side | None:
    plain = name.lower().replace("_", "")
    return next((side for side, pattern in _STATE.items() if pattern.fullmatch(plain)), None)


def _value(thing: Any, name: str) -> Any:
    """Of an attribute, or of a method without arguments; None where it raises, as somebody else's code can."""
    try:
        value = getattr(thing, name)
        return value() if callable(value) and not isinstance(value, type | nn.Module) else value
    except BaseException as error:
        let_ctrl_c_through(error)
        return None


def bits_of(value: Any) -> int | None:
    """A number of bits, 1 to 32, from an integer, a scalar tensor, a type (``qint8``) or what has ``bits``; None for
    whatever else is there. 1.58, for ternary, is 2: that is what it takes to store one and to compute with it."""
    try:
        if isinstance(value, torch.dtype | str):
            if re.match(r"(?:torch\.)?(?:fp|bf|float)\d", str(value)):
                return FLOAT_BITS
            digits = re.fullmatch(r"(?:(?:torch\.)?q?u?int)?(\d+)(?:x\d)?", str(value))
            value = int(digits[1]) if digits else None
        if hasattr(value, "bits") and not isinstance(value, nn.Module):
            return bits_of(value.bits) if not getattr(value, "is_floating_point", False) else None
        number = value.item() if isinstance(value, Tensor) else value
        if isinstance(number, bool):
            return None
        whole = 2 if 1.5 < number < 1.6 else int(number) if number == int(number) else 0
    except Exception:  # what somebody else's class holds can be anything
        return None
    return whole if 1 <= whole <= FLOAT_BITS else None
