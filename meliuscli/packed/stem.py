"""The stems of MeliusNet and BinaryDenseNet: convolutions in planes, a few rows at a time, then 3x3 max pooling on the way
to pixels (not for thumbnails)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from meliuscli.arch.families.dense import DenseFamilySpec
from meliuscli.packed.isa import Isa
from meliuscli.packed.layout import Map, Window, round_up
from meliuscli.packed.plane_steps import gather_step, plane_step, split_step
from meliuscli.packed.program import Array, Step, sequence_step
from meliuscli.packed.ring import Planes, Rows, schedule, slots_needed

BAND = 4
"""Rows of the stem's output that are made at a time."""


def padded_width(spec: DenseFamilySpec, isa: Isa) -> int:
    """Columns of the images as the stem reads them: with zeros behind."""
    return round_up(spec.input_size, isa.lanes * _first(spec).stride)


def _first(spec: DenseFamilySpec) -> Window:
    """The stem's first convolution."""
    if spec.stem == "thumbnail":
        return Window(3, padding=1)
    return Window(7, 2, padding=3) if spec.stem == "imagenet" else Window(3, 2, padding=1)


def stem_step(
    spec: DenseFamilySpec, tensors: Mapping[str, Array], isa: Isa, images: Array, out: Map, threads: int
) -> Step:
    """From images into the first channels of a map. Every thread makes a share of the rows on its own, and what few rows
    of the layers before them two shares need."""
    edges = [out.height * thread // threads for thread in range(threads + 1)]
    shares = [_share(spec, tensors, isa, images, out, rows) for rows in pairwise(edges) if rows[0] < rows[1]]
    return sequence_step("stem.layers", isa, shares)


def _share(
    spec: DenseFamilySpec, tensors: Mapping[str, Array], isa: Isa, images: Array, out: Map, rows: Rows
) -> list[Step]:
    names = [layer.name for layer in spec.layers() if layer.kind == "conv" and layer.name.startswith("stem.")]
    pools, batch = spec.stem != "thumbnail", len(images)
    windows = [_first(spec), *[Window(3, padding=1)] * (len(names) - 1)]
    size = windows[0].out_size(spec.input_size)
    seen_by = [Window(1), *windows, Window(3, 2, padding=1) if pools else Window(1)]
    heights = [spec.input_size, spec.input_size, *[size] * len(names), out.height]
    bands = schedule(seen_by, heights, rows, BAND)
    slots = [slots_needed(bands, seen_by, layer) for layer in range(1, len(seen_by))]
    vectors, parities = -(-size // isa.lanes), windows[0].stride
    content = max(vectors * isa.lanes, images.shape[3] // parities)
    source = Planes.make(spec.input_channels, spec.input_size, slots[0], content, isa, parities)
    steps = [split_step("stem.images", isa, images, source)]
    for name, window, room in zip(names, windows, slots[1:], strict=True):
        weights, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
        channels = round_up(len(weights), isa.lanes) if name == names[-1] else len(weights)
        made = Planes.make(channels, size, room, vectors * isa.lanes, isa)
        steps.append(plane_step(name, isa, source, made, batch, window, weights, bias, pools, vectors))
        source = made
    steps.append(gather_step("stem.pool", isa, source, out, pools))
    pieces = []
    for image in range(batch):
        for band in bands:
            for step, height, (begin, end) in zip(steps, heights[1:], band[1:], strict=True):
                units = step.end // (batch * height)  # a row
                if end > begin:
                    pieces.append(step.piece((image * height + begin) * units, (image * height + end) * units))
    return pieces
