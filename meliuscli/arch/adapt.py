"""A network moved from its target to other data: classes, channels, input size, and the stem that suits it."""

from __future__ import annotations

from typing import TypeVar

from meliuscli.arch.families.dense import DenseFamilySpec
from meliuscli.arch.spec import ArchSpec

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
    if isinstance(spec, DenseFamilySpec) and input_size < THUMBNAIL_BELOW:
        changes["stem"] = "thumbnail"
    return spec.replace(**changes)
