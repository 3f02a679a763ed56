"""Named networks and TOML files to specs: the one door from what a user types to an ``ArchSpec``."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from meliuscli.arch.families import FAMILIES, family_class
from meliuscli.arch.spec import ArchSpec, read_toml, validate
from meliuscli.errors import BadInputError, SpecError, unknown_name

MAX_NAME = 255
"""Bytes of a file's name."""


@dataclass(frozen=True, slots=True)
class NamedArch:
    """A spec and what to call it."""

    name: str
    spec: ArchSpec


@cache
def zoo_table() -> dict[str, dict[str, Any]]:
    """zoo.toml: canonical name -> raw fields."""
    return tomllib.loads(Path(__file__).with_name("zoo.toml").read_text(encoding="utf-8"))


def arch_names() -> tuple[str, ...]:
    """The canonical names, in the table's order."""
    return tuple(zoo_table())


def find_name(name: str, key: str = "") -> str:
    """The canonical name, whatever the case, hyphens and underscores of ``name``.

    Raises ``BadInputError`` with the nearest names."""
    by_folded = {_fold(known): known for known in zoo_table()}
    if (found := by_folded.get(_fold(name))) is not None:
        return found
    if (scaled := _scaled(name, by_folded)) is not None:
        message = f"{f'{key}: ' if key else ''}unknown network {name!r}"
        raise BadInputError(message, f"did you mean {scaled}?")
    raise unknown_name("network", name, zoo_table(), key)


def is_name(text: str) -> bool:
    """Is this the name of a known network, however it is written?"""
    return _fold(text) in map(_fold, zoo_table())


def _scaled(name: str, by_folded: Mapping[str, str]) -> str | None:
    """``pokebnn-0.9``: the network of scale one and the option that changes it; None where there is no such family."""
    match = re.fullmatch(r"(.+?)[-_ ]?(\d*\.\d+)x?", name)
    stem, number = match.groups() if match else ("", "")
    known = by_folded.get(_fold(stem)) or by_folded.get(_fold(f"{stem}-1.0"))
    if known is None or not (scale := family_class(zoo_table()[known]["family"]).scale):
        return None
    return f"{known} --set {scale}={number}"


def spec_from_fields(fields: Mapping[str, Any], where: str = "") -> ArchSpec:
    """Raw fields (as in zoo.toml) to a validated spec. ``where`` names their origin in errors. Raises ``SpecError`` for what is
    none, also where a file holds something else in their place."""
    if not isinstance(fields, Mapping):
        raise SpecError(f"{where}spec", "is no table of fields")
    if "family" not in fields:
        raise SpecError(f"{where}family", "missing", f"known families: {', '.join(FAMILIES)}")
    family = fields["family"]
    if not isinstance(family, str) or family not in FAMILIES:
        raise unknown_name("family", str(family), FAMILIES, f"{where}family")
    return validate(family_class(family), dict(fields), where)


def load_arch(name_or_path: str, overrides: Sequence[str] = ()) -> NamedArch:
    """``meliusnet29``, ``MeliusNet-A`` or ``path/to/net.toml``, with ``key=value`` overrides applied.

    Raises ``BadInputError`` for an unknown name or a malformed file, ``SpecError`` for an impossible network."""
    named = load_changed(name_or_path, parse_overrides(overrides))
    return NamedArch(f"{named.name}[{','.join(overrides)}]", named.spec) if overrides else named


def load_changed(name_or_path: str, changes: Mapping[str, Any]) -> NamedArch:
    """As ``load_arch``, with fields to change as values."""
    path = Path(name_or_path)
    if len(os.fsencode(path.name)) > MAX_NAME:  # which no file has
        raise unknown_name("network", name_or_path, zoo_table())
    if path.suffix.lower() == ".toml" or (path.exists() and not path.is_dir() and not is_name(name_or_path)):
        return _changed(read_toml(path), path.stem, changes, f"{path}: ")
    try:
        name = find_name(name_or_path)
    except BadInputError:
        if path.is_dir():
            raise BadInputError(f"{name_or_path}: is a directory, not a network", "name a TOML file in it") from None
        raise
    return _changed(zoo_table()[name], name, changes)


def arch_of(fields: Mapping[str, Any], name: str, overrides: Sequence[str] = (), where: str = "") -> NamedArch:
    """Raw fields with ``key=value`` overrides applied. ``where`` names their origin in errors."""
    named = _changed(fields, name, parse_overrides(overrides), where)
    return NamedArch(f"{name}[{','.join(overrides)}]", named.spec) if overrides else named


def _changed(fields: Mapping[str, Any], name: str, changes: Mapping[str, Any], where: str = "") -> NamedArch:
    spec = spec_from_fields({**_without_replaced(fields, changes), **changes}, where)
    return NamedArch(name, spec)


def load_name(name: str) -> ArchSpec:
    """The spec of a canonical name."""
    return spec_from_fields(zoo_table()[name])


def parse_overrides(texts: Sequence[str], option: str = "--set") -> dict[str, Any]:
    """Fields to change, as ``parse_override`` reads them. Raises ``BadInputError`` when one is given twice."""
    changes: dict[str, Any] = {}
    for key, value in (parse_override(text, option) for text in texts):
        if key in changes:
            raise BadInputError(f"{option} {key}: given twice")
        changes[key] = value
    return changes


def parse_override(text: str, option: str = "--set") -> tuple[str, Any]:
    """``growth_rate=48``, ``num_blocks=[4, 5]``, ``num_blocks=4,5`` or ``stem=imagenet`` to (key, value)."""
    key, equals, value = text.partition("=")
    key, value = key.strip(), value.strip()
    if not equals or not key or not value:
        example = {"--recipe-set": "epochs=10"}.get(option, "growth_rate=48")
        raise BadInputError(f"{option} {text!r}: not of the form key=value", f"for example {option} {example}")
    for candidate in (value, f"[{value}]") if "," in value else (value,):
        try:
            return key, tomllib.loads(f"value = {candidate}")["value"]
        except (ValueError, RecursionError):
            continue
    return key, value


def _without_replaced(fields: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Widths in ``fields`` give way to the ratio that an override states for them, and a ratio to all its widths."""
    family = str(fields.get("family"))
    replaced: set[str] = set()
    for ratio, widths in family_class(family).ratios.items() if family in FAMILIES else ():
        replaced |= set(widths) if ratio in changes else {ratio} if set(widths) <= set(changes) else set()
    return {key: value for key, value in fields.items() if key not in replaced}


def _fold(name: str) -> str:
    return re.sub(r"[-_\s]", "", name).lower()
