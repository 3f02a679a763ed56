"""What a user names as a network, counted: names, TOML files, and modules of their own."""

from __future__ import annotations

import re
from collections.abc import Sequence

from meliuscli.arch.spec import ArchSpec
from meliuscli.arch.zoo import NamedArch, load_arch
from meliuscli.cli.console import status
from meliuscli.counting.analytic import count_spec
from meliuscli.counting.conventions import find_convention
from meliuscli.counting.counts import FLOAT_BITS, Storage
from meliuscli.errors import BadInputError
from meliuscli.report.count import Counted, View

DEFAULT_INPUT = (3, 224, 224)


def make_view(convention: str, float_bits: int | None, bn_params: int | None) -> View:
    """The options that say how to count. Raises ``BadInputError`` for an unknown convention."""
    rule = find_convention(convention)
    values = rule.bn_params if bn_params is None else bn_params
    return View(rule, Storage(FLOAT_BITS if float_bits is None else float_bits, values), float_bits)


def is_own(arch: str) -> bool:
    """Does ``arch`` name a Python file (with a factory behind a colon)?"""
    return arch.rpartition(":")[0].lower().endswith(".py") or arch.lower().endswith(".py")


def count_named(arch: str, set_: Sequence[str], input_: str | None, storage: Storage) -> Counted:
    """A network of a spec, counted by arithmetic."""
    named = load_arch(arch, set_)
    spec = named.spec if input_ is None else with_input(named.spec, input_, arch)
    return Counted(named.name, spec, spec.input_shape, count_spec(spec, storage))


def own_arch(arch: str, set_: Sequence[str]) -> NamedArch:
    """A module of the user's own as what is trained."""
    from meliuscli.arch.own import own_spec
    from meliuscli.counting.foreign.source import split_reference

    if set_:
        raise BadInputError("--set changes the field of a spec; a module of your own has none")
    path, factory = split_reference(arch)
    return NamedArch(f"{path.name}:{factory}", own_spec(path, factory))


def count_own_module(
    arch: str, set_: Sequence[str], words: Sequence[str], inputs: Sequence[str], storage: Storage
) -> Counted:
    """A module of the user's own, counted as torch executes it. ``words``: see ``words_of``."""
    from meliuscli.counting.foreign import Example, count_own, load_example, parse_word

    if set_:
        raise BadInputError("--set changes the field of a spec; a module of your own has none")
    said = [parse_word(word) for word in words]
    example = Example.parse(inputs)
    with status(f"running {arch}"):
        module, given = load_example(arch)
        if not inputs:
            example = Example.of(DEFAULT_INPUT) if given is None else Example(given=given)
        own = count_own(module, example, said, storage)
    return Counted(arch, None, own.input_shape, own.count, own)


def count_any(
    arch: str, set_: Sequence[str], words: Sequence[str], inputs: Sequence[str] | str, storage: Storage
) -> Counted:
    """Whatever ``arch`` names."""
    inputs = [inputs] if isinstance(inputs, str) else inputs
    if is_own(arch):
        return count_own_module(arch, set_, words, inputs, storage)
    if len(inputs) > 1:
        raise BadInputError(f"--input is given {len(inputs)} times, but {arch} takes one image")
    return count_named(arch, set_, inputs[0] if inputs else None, storage)


def words_of(bits: Sequence[str] | None, binary: Sequence[str] | None) -> list[str]:
    """What the user says of the bits of modules: ``PATTERN=WxA`` of --bits, ``PATTERN`` of --binary."""
    return [*(f"--bits {word}" for word in bits or []), *(f"--binary {word}" for word in binary or [])]


def with_input(spec: ArchSpec, text: str, name: str) -> ArchSpec:
    """The network for images of the shape that ``--input`` asks for."""
    channels, height, width = parse_input(text)
    if height != width:
        raise BadInputError(f"--input {text}: {name} takes square images only")
    return spec.replace(input_channels=channels, input_size=height)


def parse_input(text: str) -> tuple[int, int, int]:
    """``3x224x224`` or ``224`` (three channels) to (channels, height, width)."""
    match = re.fullmatch(r"(?:(\d{1,6})x(\d{1,6})x)?(\d{1,6})", text.strip())
    if match is None or any(part is not None and int(part) == 0 for part in match.groups()):
        raise BadInputError(f"--input {text!r}: not an input shape", "write it as 3x224x224, or 224 for three channels")
    channels, height, width = match.groups()
    return (3, int(width), int(width)) if channels is None else (int(channels), int(height), int(width))
