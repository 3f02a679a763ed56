"""The stems of MeliusNet and BinaryDenseNet: convolutions in planes, a few rows at a time, then 3x3 max pooling on the way
to pixels (not for thumbnails)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from meliuscli.arch.plan import STEM, Layer, LayerKind
from meliuscli.arch.spec import ArchSpec
from meliuscli.packed.isa import Isa
from meliuscli.packed.layout import Map, Window, round_up
from meliuscli.packed.plane_steps import gather_step, plane_step, split_step
from meliuscli.packed.program import Array, Step, sequence_step
from meliuscli.packed.ring import Planes, Rows, schedule, slots_needed

BAND = 4
"""Rows of the stem's output that are made at a time."""


def padded_width(spec: ArchSpec, isa: Isa) -> int:
    """Columns of the images as the stem reads them: with zeros behind."""
    return round_up(spec.input_size, isa.lanes * _convs(spec)[0].stride)


def _convs(spec: ArchSpec) -> list[Layer]:
    return _of_the_stem(spec, "conv")


def _of_the_stem(spec: ArchSpec, kind: LayerKind) -> list[Layer]:
    return [layer for layer in spec.layers() if layer.stage == STEM and layer.kind == kind]


def stem_step(spec: ArchSpec, tensors: Mapping[str, Array], isa: Isa, images: Array, out: Map, threads: int) -> Step:
    """From images into the first channels of a map. Every thread makes a share of the rows on its own, and what few rows
    of the layers before them two shares need."""
    edges = [out.height * thread // threads for thread in range(threads + 1)]
    shares = [_share(spec, tensors, isa, images, out, rows) for rows in pairwise(edges) if rows[0] < rows[1]]
    return sequence_step(STEM, isa, shares)


def _share(spec: ArchSpec, tensors: Mapping[str, Array], isa: Isa, images: Array, out: Map, rows: Rows) -> list[Step]:
    names = [conv.name for conv in _convs(spec)]
    windows = [Window(conv.kernel, conv.stride, padding=conv.kernel // 2) for conv in _convs(spec)]
    size, batch = windows[0].out_size(spec.input_size), len(images)
    pools = bool(_of_the_stem(spec, "max_pool"))
    seen_by = [Window(1), *windows, Window(3, 2, padding=1) if pools else Window(1)]
    heights = [spec.input_size, spec.input_size, *[size] * len(names), out.height]
    bands = schedule(seen_by, heights, rows, BAND)
    slots = [slots_needed(bands, seen_by, layer) for layer in range(1, len(seen_by))]
    vectors, parities = -(-size // isa.lanes), windows[0].stride
    content = max(vectors * isa.lanes, images.shape[3] // parities)
    source = Planes.make(spec.input_channels, spec.input_size, slots[0], content, isa, parities)
    steps = [split_step(STEM, isa, images, source)]
    for name, window, room in zip(names, windows, slots[1:], strict=True):
        weights, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
        channels = round_up(len(weights), isa.lanes) if name == names[-1] else len(weights)
        made = Planes.make(channels, size, room, vectors * isa.lanes, isa)
        steps.append(plane_step(name, isa, source, made, batch, window, weights, bias, pools, vectors))
        source = made
    steps.append(gather_step(STEM, isa, source, out, pools))
    pieces = []
    for image in range(batch):
        for band in bands:
            for step, height, (begin, end) in zip(steps, heights[1:], band[1:], strict=True):
                units = step.end // (batch * height)  # a row
                if end > begin:
                    pieces.append(step.piece((image * height + begin) * units, (image * height + end) * units))
    return pieces
