"""The short form of a network: one line of its family's own fields, and the sentence that says how to read it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, Any

from meliuscli.errors import SpecError

if TYPE_CHECKING:
    from meliuscli.arch.spec import ArchSpec

LONG = 8
"""Lists with more entries than this are written in runs: ``512x6``."""
USUAL_SIZE = 224
NEVER = ("family", "num_classes", "input_channels", "input_size")
"""Fields that belong to the task, or that a short form says in another way."""


@lru_cache(maxsize=2**13)  # building a spec to compare with takes a millisecond or two, and tables ask again
def summarise(spec: ArchSpec) -> str:
    """``1,11,13,1 g32 t256,384,256 /1 s96``: the fields with letters, then those that are not what they would be if they
    were left out, by name, then the input size where it is not 224."""
    fields = spec.model_dump()
    words = [f"{letter}{_text(fields[key], key in spec.one_for_all)}" for key, letter in spec.letters.items()]
    for key in fields:
        if key not in spec.letters and key not in NEVER and not _is_default(spec, fields, key):
            words.append(f"{key}={_text(fields[key], key in spec.one_for_all)}")
    if spec.input_size != USUAL_SIZE:
        words.append(f"@{spec.input_size}")
    return " ".join(words)


def legend_of(letters: Mapping[str, str]) -> str:
    """How to read the short forms of a family with these letters."""
    words = [f"{letter} for {key}" if letter else f"{key} first" for key, letter in letters.items()]
    runs = "" if "num_blocks" in letters else ", 512x6 is six times 512"
    return (
        f"a network is written in its fields: {', '.join(words)}{runs}; another field follows by name where it is not the"
        f" default, and @ gives the input size where it is not {USUAL_SIZE}"
    )


def _is_default(spec: ArchSpec, fields: dict[str, Any], key: str) -> bool:
    """Would the spec be the same without this field?"""
    from meliuscli.arch.spec import validate

    try:
        return validate(type(spec), {name: value for name, value in fields.items() if name != key}) == spec
    except SpecError:
        return False


def _text(value: Any, one_for_all: bool) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, tuple):
        return str(value)
    if one_for_all and len(set(value)) == 1:
        return str(value[0])
    if len(value) <= LONG:
        return ",".join(map(str, value))
    runs = ((entry, len(list(run))) for entry, run in groupby(value))
    return ",".join(f"{entry}x{length}" if length > 1 else str(entry) for entry, length in runs)
