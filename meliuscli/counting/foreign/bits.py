"""At which bits a layer counts: one ruling from what the user says, what is stated, what is stored and what was seen."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from meliuscli.counting.counts import FLOAT_BITS
from meliuscli.counting.foreign.levels import MANY
from meliuscli.counting.foreign.statements import Stated
from meliuscli.counting.foreign.values import OF_SUMS, Seen
from meliuscli.errors import BadInputError

Bits = tuple[int, int]
"""Of the weights and of the activations; 32 for float."""

FLOAT = (FLOAT_BITS, FLOAT_BITS)


@dataclass(frozen=True, slots=True)
class Word:
    """What the user says: the modules that a pattern matches have these bits."""

    pattern: str
    bits: Bits
    option: str

    def names(self, paths: Iterable[str]) -> bool:
        """``fnmatch`` style; ``*`` crosses dots. A pattern names a module with all below it."""
        return any(fnmatchcase(above, self.pattern) for path in paths for above in _and_above(path))


@dataclass(frozen=True, slots=True)
class Evidence:
    """Of one operand: what is stated (and by whom), the bits of an integer type, the values seen, and whether it was made
    of signs."""

    stated: Stated | None = None
    stored: int | None = None
    seen: Seen = Seen()  # noqa: RUF009
    is_sign: bool = False

    def __or__(self, other: Evidence) -> Evidence:
        """Of two calls: what both state, and the more values."""
        stated = max(self.stated, other.stated) if self.stated and other.stated else None
        return Evidence(stated, self.stored and other.stored, self.seen | other.seen, self.is_sign and other.is_sign)


NOTHING = Evidence()


@dataclass(frozen=True, slots=True)
class Ruling:
    """``dearer``: the bits, were what is assumed not so; ``bits`` again where nothing is. ``doubt`` says what is
    assumed, ``note`` what else there is to say."""

    bits: Bits
    dearer: Bits
    why: str
    doubt: str = ""
    note: str = ""


def parse_word(text: str) -> Word:
    """``--bits PATTERN=WxA`` (bits 1 to 32; ternary is 2, and 1.58 too, for that is what storing and multiplying it
    takes) or ``--binary PATTERN``; a pattern alone names binary modules. Raises ``BadInputError``."""
    option, _, pattern = text.partition(" ")
    if option != "--bits":
        return Word(text.removeprefix("--binary "), (1, 1), "--binary")
    match = re.fullmatch(r"(.+)=(\d\d?|1\.58|ternary)x(\d\d?|1\.58|ternary)", pattern)
    bits = [2 if side in ("1.58", "ternary") else int(side) for side in match.groups()[1:]] if match else []
    if match is None or not all(1 <= side <= FLOAT_BITS for side in bits):
        hint = "write PATTERN=WxA, bits of weights and activations: 1x1, 1x8, 2x8 (ternary is 2), 1x32 (32 is float)"
        raise BadInputError(f"--bits {pattern}: not a pattern with bits", hint)
    return Word(match[1], (bits[0], bits[1]), option)


def ruling(weight: Evidence, activation: Evidence, word: Word | None, has_binary_name: bool) -> Ruling:
    """The first of these that holds decides, for each operand: the user's word, what is stated, an integer type, the
    distinct values that were seen.

    A name decides nothing where values do. In a layer with a binary one, operands of one value (as signs are in a
    network that was not trained) go for two; and, where its activations do, float weights go for ones that are yet to be
    made binary, and zeros among the signs for torch's sign of zero: both are doubts."""
    if word is not None:
        broken = _broken_words(weight, activation, word.bits)
        doubt = f"counts as {bits_text(word.bits)}, but {broken} here" if broken else ""
        return Ruling(word.bits, word.bits, f"{bits_text(word.bits)} by {word.option} {word.pattern}", doubt)
    (w, dearer_w, why_w), (a, dearer_a, why_a) = _decided(weight), _decided(activation)
    is_seen = [evidence.stated is None and evidence.stored is None for evidence in (weight, activation)]
    note = ""
    if (
        has_binary_name
        and is_seen[1]
        and (activation.seen.signed or activation.seen.thin or activation.seen.levels == 1)
    ):
        a, dearer_a, why_a = 1, 2 - (activation.seen.levels == 1), f"{why_a}: signs, by its name"
    if has_binary_name and a == 1 and is_seen[0] and weight.seen.levels in (1, MANY):
        w, dearer_w = 1, FLOAT_BITS if weight.seen.levels == MANY else 1
        why_w = f"{why_w}: yet to be signs, by its name"
    elif has_binary_name and w == FLOAT_BITS and (more := _broken_words(weight, activation, (1, 1))):
        note = f"its name is that of a binary layer, but {more}: it counts as float"
    if w == FLOAT_BITS and weight.is_sign:
        note = f"its weights are signs that are all alike (thin): they count as float, unless {_SAY}"
    if w == FLOAT_BITS and is_seen[1]:
        a = dearer_a = FLOAT_BITS
    broken = _broken_words(weight, activation, (w, a))
    if not broken and a < dearer_a:
        broken = "its activations may take more than the two values that are seen"
    assumed = f"counts as {bits_text((w, a))}, but {broken}" if broken else ""
    why = f"{bits_text((w, a))}: {_why(why_w, '' if weight != activation == NOTHING else why_a)}"
    return Ruling((w, a), (max(w, dearer_w), max(a, dearer_a)), why, assumed, note)


def _decided(evidence: Evidence) -> tuple[int, int, str]:
    """Bits, the dearer reading, and why."""
    seen = evidence.seen
    if evidence.stated is not None:
        bits = evidence.stated.bits
        dearer = max(bits, seen.bits) if seen.levels > 2**bits else bits
        return bits, dearer, f"are {bits}-bit as {evidence.stated.by} states"
    if evidence.stored is not None:
        return evidence.stored, evidence.stored, f"are stored in {evidence.stored} bit{'s' * (evidence.stored > 1)}"
    if evidence.is_sign and (seen.thin or seen.signed):
        return 1, 1 + seen.signed, "are scaled signs" + " and zeros" * seen.signed
    if seen.thin:
        return 2, 2, "take two values (thin: a third may have been missed)"
    return seen.bits, seen.bits, f"take {_number(seen.levels)}" if seen.levels else "were not seen"


def _why(weight: str, activation: str) -> str:
    if weight == activation:
        return f"weights and activations {weight}"
    return f"weights {weight}, activations {activation}" if activation else f"weights {weight}"


def _number(levels: int) -> str:
    words = {1: "one value", 2: "two values", 3: "three values", 4: "four values", OF_SUMS: "the values of sums"}
    return words.get(levels, f"{levels} values" if levels < MANY else "more than 256 values")


def _broken_words(weight: Evidence, activation: Evidence, bits: Bits) -> str:
    """``its weights take three values and its activations more than two values``: of those that take too many."""
    operands = (("weights", weight.seen, bits[0]), ("activations", activation.seen, bits[1]))
    broken = {role: _too_many(seen, limit) for role, seen, limit in operands if seen.levels > 2**limit}
    if broken.get("activations") == "three values" and activation.seen.signed:
        del broken["activations"]
        zero = ["zero is a third value of its activations (torch.sign of 0, or padding)"]
    else:
        zero = []
    if len(set(broken.values())) < len(broken):
        return f"its weights and activations take {broken['weights']}"
    return " and ".join([*zero, *(f"its {role} take {values}" for role, values in broken.items())])


def _too_many(seen: Seen, bits: int) -> str:
    return _number(seen.levels) if seen.levels == 3 else f"more than {'two' if bits == 1 else 2**bits} values"


def bits_text(bits: Bits) -> str:
    if bits[0] < bits[1] == FLOAT_BITS:
        return f"{'binary' if bits[0] == 1 else f'{bits[0]}-bit'} weights, float MACs"
    return "binary" if bits == (1, 1) else "float" if bits == FLOAT else f"{bits[0]}x{bits[1]} bits"


def _and_above(name: str) -> list[str]:
    parts = name.split(".")
    return [name, *(".".join(parts[:depth]) for depth in range(len(parts) - 1, 0, -1))]


def check_words(words: Sequence[Word], rows: Mapping[str, Sequence[str]], counted: Iterable[str]) -> None:
    """Raises ``BadInputError`` for a word that matches no row (with all the names that it has) or none that has weights
    or products."""
    with_macs = [row for row in rows if row in set(counted)]
    for word in words:
        matched = [row for row, names in rows.items() if word.names(names)]
        if set(matched) & set(with_macs):
            continue
        near = difflib.get_close_matches(word.pattern, with_macs, n=3, cutoff=0.4)
        hint = f"nearest: {', '.join(near)}" if near else f"modules with weights or products: {some(with_macs)}"
        reason = f"matches only modules without weights or products ({some(matched)})" if matched else _NO_SUCH
        raise BadInputError(f"{word.option} {word.pattern}: {reason}", hint)


_SAY = "--bits PATTERN=1x1 says what they are"
_NO_SUCH = "no module of the network has such a name"


def some(names: Sequence[str], most: int = 3) -> str:
    """The first few of many names: ``a, b, c and 4 more``."""
    text = ", ".join(name or "the network itself" for name in names[:most])
    return f"{text} and {len(names) - most} more" if len(names) > most else text
