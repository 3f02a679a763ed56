"""RAM and flash of the C library whose stem and head are in int8 (``export --to c --float-bits 8``), from those in float32. No
torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from meliuscli.arch.families.dense import DenseFamilySpec
from meliuscli.arch.families.small import FinnConvSpec, FinnDenseSpec
from meliuscli.arch.plan import HEAD, STEM, Layer
from meliuscli.arch.spec import ArchSpec
from meliuscli.counting.memory_parts import Alive, Constants, stem_rows


def has_float_ends(spec: ArchSpec) -> bool:
    """Has a network that runs in C a stem and a head of floats?"""
    return not isinstance(spec, FinnDenseSpec | FinnConvSpec)


def int8_parts(spec: ArchSpec, layers: tuple[Layer, ...], parts: tuple[Alive, ...]) -> tuple[Alive, ...]:
    """A byte a value of the stem's rows; what a head that averages nothing sees, in bytes."""
    stem = [layer for layer in layers if layer.stage == STEM]
    saved = stem_rows(spec, stem) - stem_rows(spec, stem, 1)
    head = parts[-1]
    if not any(layer.kind == "avg_pool" for layer in layers if layer.stage == HEAD):
        head = replace(head, float_bytes=head.float_bytes + 4 * -(-_classifier(layers).in_channels // 4))
    first = replace(parts[0], float_bytes=parts[0].float_bytes - saved)
    return (first, *parts[1:-1], head)


def int8_flash(spec: ArchSpec, layers: tuple[Layer, ...]) -> Iterator[Constants]:
    """What is there more, or less, than in float32: a byte a weight and a scale a filter; an affine function of the image and one of
    what leaves the stem, where there is none in float32."""
    convs = [layer for layer in layers if layer.stage == STEM and layer.kind == "conv"]
    for layer in (*convs, _classifier(layers)):
        yield layer, 4 * layer.out_channels - 3 * layer.weights
    names = {layer.name for layer in layers if layer.kind == "batch_norm"}
    if "input_norm" not in names or isinstance(spec, DenseFamilySpec):
        yield convs[0], 8 * spec.input_channels
    if f"{STEM}.norm" not in names or isinstance(spec, DenseFamilySpec):
        yield convs[-1], 8 * convs[-1].out_channels


def _classifier(layers: tuple[Layer, ...]) -> Layer:
    return next(layer for layer in layers if layer.kind == "linear")
