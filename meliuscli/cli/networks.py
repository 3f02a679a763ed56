"""What a user names as a network, counted: names, TOML files, and modules of their own."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from meliuscli.arch.spec import MAX_TOML, ArchSpec, parse_toml
from meliuscli.arch.zoo import NamedArch, arch_names, arch_of, load_arch, spec_from_fields
from meliuscli.cli.console import status
from meliuscli.counting.analytic import count_spec
from meliuscli.counting.counts import FLOAT_BITS, Storage
from meliuscli.errors import BadInputError
from meliuscli.memory import require_memory
from meliuscli.report.counted import Counted, shape_text
from meliuscli.report.recorded import recorded, recorded_count
from meliuscli.runs import REPORTS, load_run

if TYPE_CHECKING:
    from torch import nn

    from meliuscli.counting.foreign import OwnCount
    from meliuscli.exchange.headers import FileHeader

DEFAULT_INPUT = (3, 224, 224)


def is_own(arch: str) -> bool:
    """Does ``arch`` name a Python file (with a factory behind a colon)?"""
    return arch.rpartition(":")[0].lower().endswith(".py") or arch.lower().endswith(".py")


def the_one(argument: str | None, option: str | None) -> str:
    """The network that a command is about, named as its argument or by ``--arch``."""
    if argument is not None and option is not None:
        raise BadInputError(f"{argument} and --arch {option}: give one network", "meliuscli compare takes several")
    network = option if argument is None else argument
    if network is None:
        raise BadInputError("which network? name one, as an argument or by --arch", "for example meliusnet22")
    return network


def load_network(arch: str, set_: Sequence[str] = (), reports: Path = REPORTS) -> NamedArch:
    """The network of a name, a TOML file, TOML on stdin (``-``), a recorded run (``run:ID``: what was trained) or a file of
    ours: of weights, packed or not, an ONNX file, a directory of C.

    Raises ``BadInputError`` for a module of one's own, which has no fields, and as ``load_arch``."""
    return load_with_header(arch, set_, reports)[0]


def load_with_header(arch: str, set_: Sequence[str], reports: Path) -> tuple[NamedArch, FileHeader | None]:
    """As ``load_network``, with the header of its file where that is one of ours."""
    if is_own(arch):
        raise BadInputError(
            f"{arch}: a module of your own can be counted, compared, timed, trained and exported, and nothing else",
            "a network of a family can do all: meliuscli show meliusnet22 --toml writes a file to change",
        )
    if arch == "-":
        return arch_of(parse_toml(_stdin(), "stdin"), "stdin", set_, "stdin: "), None
    if arch.lower().startswith("run:"):
        run = load_run(arch.partition(":")[2], reports, unfinished=True)
        if set_:
            raise BadInputError(f"--set: {arch} is what was trained, and stays so", "leave --set out")
        trained = run.fields["trained_as"]
        if trained.get("family") == "own":
            raise BadInputError(
                f"{arch}: is of a module of your own ({run.fields['arch']}), which no spec describes",
                f"name its file: {trained.get('path')}:{trained.get('factory')}; meliuscli compare takes the run too",
            )
        return NamedArch(f"run:{run.id}", spec_from_fields(trained, f"{run.path}: ")), None
    if (header := _header(arch)) is not None:
        if set_:
            raise BadInputError(f"--set: {arch} is what was trained, and stays so", "leave --set out")
        return header.named, header
    return load_arch(arch, set_), None


def _stdin() -> bytes:
    if sys.stdin is None or sys.stdin.isatty():
        raise BadInputError("-: stdin has no TOML", "meliuscli show meliusnet22 --toml | meliuscli count -")
    return sys.stdin.buffer.read(MAX_TOML + 1)


def count_named(
    arch: str, set_: Sequence[str], input_: str | None, storage: Storage, reports: Path = REPORTS
) -> Counted:
    """A network of a spec, counted by arithmetic."""
    named, header = load_with_header(arch, set_, reports)
    if input_ is not None and header is not None and header.kind != "weights":
        raise own_size(input_, arch)
    memory_bits = None if header is None or header.kind != "c" else 8 if header.is_int8 else FLOAT_BITS
    spec = named.spec if input_ is None else with_input(named.spec, input_, arch)
    how = None if header is None else header.preprocessing
    count = count_spec(spec, storage)
    return Counted(named.name, spec, spec.input_shape, count, memory_bits=memory_bits, preprocessing=how)


def _header(arch: str) -> FileHeader | None:
    """Of a file of ours."""
    if arch.lower() in arch_names():
        return None  # without loading what reads files
    from meliuscli.exchange.headers import names_file, read_header

    return read_header(Path(arch)) if names_file(arch) else None


def own_size(input_: str, arch: str) -> BadInputError:
    """Of an exported file, which takes images of one shape."""
    return BadInputError(f"--input {input_}: {arch} is for images of its own size", "leave --input out")


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
    _, own = load_own(arch, set_, words, inputs, storage)
    return Counted(arch, None, own.input_shape, own.count, own)


def load_own(
    arch: str, set_: Sequence[str], words: Sequence[str], inputs: Sequence[str], storage: Storage
) -> tuple[nn.Module, OwnCount]:
    """A module of the user's own, and its count."""
    from meliuscli.counting.foreign import Example, count_own, load_example, parse_word

    if set_:
        raise BadInputError("--set changes the field of a spec; a module of your own has none")
    said = [parse_word(word) for word in words]
    example = Example.parse(inputs)
    for _, _, shape in example.parts:
        require_memory(8 * math.prod(shape), f"an input of {shape_text(shape)}", "take a smaller --input")
    with status(f"running {arch}"):
        module, given = load_example(arch)
        if not inputs:
            example = Example.of(DEFAULT_INPUT) if given is None else Example(given=given)
        return module, count_own(module, example, said, storage)


def count_run(arch: str, set_: Sequence[str], input_: str | None, storage: Storage, reports: Path) -> Counted:
    """What a run trained, with its accuracy where it is counted at the input that it was trained at. A module of one's own
    is counted as its record has it: nothing is executed."""
    run = load_run(arch.partition(":")[2], reports, unfinished=True)
    trained, said = run.fields["trained_as"], recorded(run)
    if trained.get("family") != "own":
        counted = count_named(arch, set_, input_, storage, reports)
        is_as_trained = counted.spec == load_network(arch, (), reports).spec
        return replace(counted, run=said if is_as_trained else None)
    shape = (trained["input_channels"], trained["input_size"], trained["input_size"])
    if set_ or (input_ is not None and parse_input(input_) != shape):
        what = "--set" if set_ else f"--input {input_}"
        hint = f"name its file: {said.arch}; it was trained at {shape_text(shape)}"
        raise BadInputError(f"{what}: {arch} is what was trained, and stays so", hint)
    return Counted(f"run:{run.id}", None, shape, recorded_count(run, storage), run=said)


def count_any(
    arch: str,
    set_: Sequence[str],
    words: Sequence[str],
    inputs: Sequence[str] | str,
    storage: Storage,
    reports: Path = REPORTS,
) -> Counted:
    """Whatever ``arch`` names."""
    inputs = [inputs] if isinstance(inputs, str) else inputs
    if is_own(arch):
        return count_own_module(arch, set_, words, inputs, storage)
    if len(inputs) > 1:
        raise BadInputError(f"--input is given {len(inputs)} times, but {arch} takes one image")
    return count_named(arch, set_, inputs[0] if inputs else None, storage, reports)


def words_of(bits: Sequence[str] | None, binary: Sequence[str] | None) -> list[str]:
    """What the user says of the bits of modules: ``PATTERN=WxA`` of --bits, ``PATTERN`` of --binary."""
    return [*(f"--bits {word}" for word in bits or []), *(f"--binary {word}" for word in binary or [])]


def with_input(spec: ArchSpec, text: str, name: str) -> ArchSpec:
    """The network for images of the shape that ``--input`` asks for."""
    channels, height, width = parse_input(text)
    if height != width:
        first = "; channels come first" if channels == height or width in (1, 3) else ""
        raise BadInputError(f"--input {text}: {name} takes square images only{first}", "write it as 3x224x224")
    return spec.replace(input_channels=channels, input_size=height)


def parse_input(text: str) -> tuple[int, int, int]:
    """``3x224x224`` or ``224`` (three channels) to (channels, height, width)."""
    match = re.fullmatch(r"(?:(\d{1,6})x(\d{1,6})x)?(\d{1,6})", text.strip())
    if match is None or any(part is not None and int(part) == 0 for part in match.groups()):
        raise BadInputError(f"--input {text!r}: not an input shape", "write it as 3x224x224, or 224 for three channels")
    channels, height, width = match.groups()
    return (3, int(width), int(width)) if channels is None else (int(channels), int(height), int(width))


def count_to_compare(
    arch: str,
    set_: Sequence[str],
    words: Sequence[str],
    inputs: Sequence[str],
    storage: Storage,
    reports: Path = REPORTS,
) -> Counted:
    """As ``count_any``, and what a run trained with its accuracy."""
    if arch.lower().startswith("run:") and len(inputs) < 2:
        return count_run(arch, set_, inputs[0] if inputs else None, storage, reports)
    return count_any(arch, set_, words, inputs, storage, reports)
