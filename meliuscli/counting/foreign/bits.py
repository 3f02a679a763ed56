"""Which layers of somebody's module are binary, or of few bits, and by what rule."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from operator import attrgetter

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from meliuscli.counting.counts import FLOAT_BITS
from meliuscli.counting.foreign.source import let_ctrl_c_through
from meliuscli.errors import BadInputError

FLOAT = (FLOAT_BITS, FLOAT_BITS)


_CONV_OR_LINEAR = re.compile(
    # QConv2d, QConv2d_NoAct, _QLinearComposed (bitorch), QuantConv2d, QuantDense (larq); BConv2d, IRConv2d (IR-Net)
    r"(?:(?:q|quant|b|ir)(?:conv[123]d|conv2dtranspose|linear|dense)"
    # BinaryConv2d, BinConv, BinarizeLinear, BinarizedConv2d, HardBinaryConv (ReActNet), XnorConv2d, BnnLinear
    r"|(?:hard|soft|my|ada)?(?:bin|bnn|binary|binari[sz]ed?|xnor)(?:conv(?:[123]d)?|convolution|linear|dense|fc))"
    r"(?:noact|base|composed|layer)?"
)
"""Names of binary layers in the field, in lower case and without underscores."""

_WEIGHT_BITS = ("weight_bits", "weight_bit_width", "weight_bit", "w_bits", "w_bit", "wbits", "wbit", "nbits_w")
_ACTIVATION_BITS = ("activation_bits", "input_bits", "input_bit_width", "a_bits", "a_bit", "abits", "abit", "nbits_a")
_WEIGHT_QUANTIZERS = ("_weight_quantize", "weight_quantization", "weight_quantizer", "weight_quant", "kernel_quantizer")
_ACTIVATION_QUANTIZERS = ("activation.activation_function", "input_quantization", "input_quantizer", "input_quant")
_QUANTIZER_BITS = ("bit_width", "num_bits", "bits", "n_bits", "nbits", "bitwidth")

_OWN_WORDS = ("weight_bits", "activation_bits")
_BY_USER = "by --binary"

_WITHOUT_MACS = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.LocalResponseNorm,
    nn.Embedding,
    nn.EmbeddingBag,
)
"""Their weights scale or are looked up; no pattern makes them binary."""


@dataclass(frozen=True, slots=True)
class OwnBits:
    """Bits by module name, with the rule that decided each; modules without an entry are float. What ``count_trace``
    asks. ``layers``: the module whose rule it was, by the names of all that are part of the same layer. ``by_user``:
    those that a pattern names. ``ignored``: modules whose attributes state bits that are none, and which.
    ``changed``: those whose values say otherwise (``as_seen``)."""

    bits: Mapping[str, tuple[int, int]]
    reasons: Mapping[str, str]
    layers: Mapping[str, str]
    by_user: frozenset[str]
    ignored: Mapping[str, str]
    changed: frozenset[str] = frozenset()

    def __call__(self, name: str, module: nn.Module) -> tuple[int, int]:
        return self.bits.get(name, FLOAT)


def own_network_bits(module: nn.Module, patterns: Sequence[str] = ()) -> OwnBits:
    """Which parts of ``module`` are binary, or of few bits. The first rule that holds decides:

    1. a pattern (``fnmatch`` style; ``*`` crosses dots) matches the module's name or that of one above it: 1x1 bits;
    2. the module has ``weight_bits`` and ``activation_bits``, integers of 1 to 32, as our own layers;
    3. its class, or one that it inherits from outside torch, has a name that the field gives to binary layers: the
       bits that its quantizers state, else 1x1. Where such a layer has no weights of its own it wraps one: then its
       convolutions (or else its linear layers) are what is binary.

    Normalization and embeddings are never binary. Raises ``BadInputError`` for a pattern that matches no module, or
    none with weights."""
    names: dict[nn.Module, list[str]] = {}
    for name, part in module.named_modules(remove_duplicate=False):
        names.setdefault(part, []).append(name)
    for pattern in patterns:
        _check_pattern(names, pattern)
    rules: dict[str, tuple[tuple[int, int], str, str]] = {}
    ignored: dict[str, str] = {}
    for part, (name, *others) in names.items():
        if isinstance(part, _WITHOUT_MACS):
            continue
        by_user = _by_pattern([name, *others], patterns)
        found = by_user or _by_own_word(part) or _by_class_name(part)
        if found:
            rules[name] = (*found, name)
            rules.update((heir, (*found, name)) for heir in _heirs(name, part) if heir not in rules)
        if not by_user and (words := _words_that_are_no_bits(part)):
            ignored[name] = words
    return OwnBits(
        {name: bits for name, (bits, _, _) in rules.items()},
        {name: f"{bits_text(bits)} {by}" for name, (bits, by, _) in rules.items()},
        {name: layer for name, (_, _, layer) in rules.items()},
        frozenset(name for name, (_, by, _) in rules.items() if by.startswith(_BY_USER)),
        ignored,
    )


def bits_text(bits: tuple[int, int]) -> str:
    if bits == (1, FLOAT_BITS):
        return "binary weights, float MACs"
    return "binary" if bits == (1, 1) else "float" if bits == FLOAT else f"{bits[0]}x{bits[1]} bits"


def _by_pattern(names: Sequence[str], patterns: Sequence[str]) -> tuple[tuple[int, int], str] | None:
    """``names`` are one module's: a shared one has several."""
    paths = {path for name in names for path in _and_above(name)}
    hit = next((pattern for pattern in patterns if any(fnmatchcase(path, pattern) for path in paths)), None)
    return None if hit is None else ((1, 1), f"{_BY_USER} {hit}")


def _and_above(name: str) -> list[str]:
    parts = name.split(".")
    return [name, *(".".join(parts[:depth]) for depth in range(len(parts) - 1, 0, -1))]


def _by_own_word(part: nn.Module) -> tuple[tuple[int, int], str] | None:
    weight, activation = (_integer(part, word) for word in _OWN_WORDS)
    if weight is None or activation is None or (weight, activation) == FLOAT:
        return None
    return (weight, activation), f"as {type(part).__name__} states"


def _words_that_are_no_bits(part: nn.Module) -> str:
    """``weight_bits`` and ``activation_bits`` where one of them is no number of bits; None goes for not there."""
    values = {word: value for word in _OWN_WORDS if (value := _attribute(part, word)) is not None}
    if all(_integer(part, word) is not None for word in values):
        return ""
    return " and ".join(f"{word}={value!r:.40}" for word, value in values.items() if _integer(part, word) is None)


def _by_class_name(part: nn.Module) -> tuple[tuple[int, int], str] | None:
    own = [cls.__name__ for cls in part.__class__.__mro__ if cls.__module__.partition(".")[0] != "torch"]
    name = next((name for name in own if _CONV_OR_LINEAR.fullmatch(name.lower().replace("_", ""))), None)
    if name is None:
        return None
    weight = _stated_bits(part, _WEIGHT_BITS, _WEIGHT_QUANTIZERS)
    activation = _stated_bits(part, _ACTIVATION_BITS, _ACTIVATION_QUANTIZERS)
    if weight is None and activation is None:
        return (1, 1), f"by class name {name}"
    return (weight or activation or 1, activation or weight or 1), f"as the quantizers of {name} state"


def _stated_bits(part: nn.Module, direct: Iterable[str], quantizers: Iterable[str]) -> int | None:
    paths = [*direct, *(f"{quantizer}.{bits}" for quantizer in quantizers for bits in _QUANTIZER_BITS)]
    return next((bits for bits in (_integer(part, path) for path in paths) if bits is not None), None)


def _integer(part: nn.Module, path: str) -> int | None:
    """The attribute as a number of bits, 1 to 32; None for whatever else is there."""
    value = _attribute(part, path)
    try:
        number = value.item() if isinstance(value, Tensor) else value
        whole = int(number) if not isinstance(number, bool) and number == int(number) else 0  # type: ignore[call-overload]
    except Exception:  # what somebody else's class holds can be anything
        return None
    return whole if 1 <= whole <= FLOAT_BITS else None


def _attribute(part: nn.Module, path: str) -> object:
    """None where it is not there: a property of somebody else's class can raise whatever it likes."""
    try:
        return attrgetter(path)(part)
    except BaseException as error:
        let_ctrl_c_through(error)
        return None


def _heirs(name: str, part: nn.Module) -> list[str]:
    """Modules below a binary one that are part of the same layer: where it holds its weights itself, those without any
    (what applies the weights); else the convolutions, or else the linear layers."""
    below = {f"{name}.{key}" if name else key: child for key, child in part.named_modules() if key}
    bare = [
        key for key, child in below.items() if weight_of(child) is None and not list(child.parameters(recurse=False))
    ]
    if weight_of(part) is not None:
        return bare
    weighted = {key: weight.dim() for key, child in below.items() if (weight := weight_of(child)) is not None}
    convs = [key for key, dims in weighted.items() if dims > 2]
    return [*bare, *(convs or weighted)]


def weight_of(part: nn.Module) -> nn.Parameter | None:
    """The largest parameter of its own, where that is a matrix or a kernel that multiplies."""
    own = [p for p in part.parameters(recurse=False) if not is_lazy(p)]
    largest = max(own, key=Tensor.numel, default=None)
    if largest is None or largest.dim() < 2 or isinstance(part, _WITHOUT_MACS):
        return None
    return largest


def _check_pattern(modules: Mapping[nn.Module, Sequence[str]], pattern: str) -> None:
    matched = {part: names for part, names in modules.items() if _by_pattern(names, [pattern])}
    if any(weight_of(part) is not None for part in matched):
        return
    weighted = [names[0] for part, names in modules.items() if weight_of(part) is not None]
    near = difflib.get_close_matches(pattern, weighted, n=3, cutoff=0.4)
    hint = f"nearest: {', '.join(near)}" if near else f"modules with weights: {some(weighted)}"
    if matched:
        found = some([names[0] for names in matched.values()])
        raise BadInputError(f"--binary {pattern}: matches only modules without weights ({found})", hint)
    raise BadInputError(f"--binary {pattern}: no module of the network has such a name", hint)


def some(names: Sequence[str], most: int = 3) -> str:
    """The first few of many names: ``a, b, c and 4 more``."""
    text = ", ".join(name or "the network itself" for name in names[:most])
    return f"{text} and {len(names) - most} more" if len(names) > most else text
