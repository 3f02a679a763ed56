"""A network moved from its target to other data: classes, channels, input size, and the stem that suits it."""

from __future__ import annotations

from typing import TypeVar

from meliuscli.arch.families.dense import DenseFamilySpec
from meliuscli.arch.spec import ArchSpec
from meliuscli.errors import SpecError

Spec = TypeVar("Spec", bound=ArchSpec)

THUMBNAIL_BELOW = 50
"""Inputs smaller than this take the thumbnail stem (BMXNet's rule)."""


def at_input(spec: Spec, num_classes: int, input_channels: int, input_size: int) -> Spec:
    """``spec`` for this many classes and this input. Raises ``SpecError`` when the input is too small for it."""
    changes: dict[str, object] = {
        "num_classes": num_classes,
        "input_channels": input_channels,
        "input_size": input_size,
    }
    if "stem" in type(spec).model_fields and input_size < THUMBNAIL_BELOW:
        changes["stem"] = "thumbnail"
    return spec.replace(**changes)


def narrowed(spec: ArchSpec, divisor: int, key: str) -> ArchSpec:
    """``spec`` with all widths divided by ``divisor``; ``key`` names the divisor in the error.

    Raises ``SpecError`` when its family cannot be narrowed."""
    if divisor == 1:
        return spec
    if not isinstance(spec, DenseFamilySpec):
        raise SpecError(key, f"the family {spec.family} cannot be narrowed")
    return spec.narrowed(divisor)
