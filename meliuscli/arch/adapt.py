"""A network moved from its target to other data: classes, channels, input size, the stem that suits it, its widths."""

from __future__ import annotations

from typing import TypeVar

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
    if input_size < THUMBNAIL_BELOW:
        changes |= spec.small_images
    return spec.replace(**changes)


def narrowed(spec: Spec, divisor: int, key: str) -> Spec:
    """``spec`` with all widths divided by ``divisor``; ``key`` names the divisor in the error.

    Raises ``SpecError`` when its family cannot be narrowed."""
    if divisor == 1:
        return spec
    try:
        return spec.narrowed(divisor)
    except SpecError as error:
        raise SpecError(
            key, f"dividing the widths of {spec.summary()} by {divisor}: {error.message}", error.hint
        ) from None


def as_proxy(spec: Spec, num_classes: int, input_channels: int, input_size: int, width_divisor: int) -> Spec:
    """The network that stands in for ``spec`` in a short training: at the proxy's input, with narrowed widths.

    Raises ``SpecError`` that names ``proxy.input_size`` or ``proxy.width_divisor``."""
    try:
        moved = at_input(spec, num_classes, input_channels, input_size)
    except SpecError as error:
        raise SpecError(
            "proxy.input_size",
            f"{input_size} is too small for {spec.family} {spec.summary()}: {error.message}",
            "give the proxy larger images; proxy.width_divisor narrows the widths and leaves the maps as they are",
        ) from None
    return narrowed(moved, width_divisor, "proxy.width_divisor")
