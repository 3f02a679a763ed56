"""Where a chain's maps lie in the arena of the C library: each from the step that writes it to the last one that reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from meliuscli.export.c.arena import PIXELS, Moment, window_bytes
from meliuscli.export.c.chain import (
    IMAGE,
    LOGITS,
    BinaryStep,
    Chain,
    ChainStep,
    HeadStep,
    ShortcutStep,
    SignStep,
    StemStep,
)
from meliuscli.packed.layout import num_words, round_up


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes that are needed from a step to another, inclusive. ``kind`` is what for: float, sign or count."""

    name: str
    kind: str
    size: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class ChainArena:
    """``offsets`` in bytes, of maps and of what steps need for themselves, by name."""

    size: int
    offsets: Mapping[str, int]
    moments: tuple[Moment, ...]


def scratch_of(step: ChainStep) -> str:
    """The name of what a step needs for itself."""
    return f"{step.name} scratch"


def plan_chain(chain: Chain) -> ChainArena:
    """The largest first; or, where that is smaller in all, first those that are needed when most is."""
    rooms = list(rooms_of(chain))
    needed = [sum(room.size for room in rooms if room.first <= at <= room.last) for at in range(len(chain.steps))]
    by_size = sorted(rooms, key=lambda one: (-one.size, one.first))
    by_need = sorted(by_size, key=lambda one: -max(needed[one.first : one.last + 1]))
    places = [_placed(order) for order in (by_size, by_need)]
    sizes = [max(offsets[room.name] + room.size for room in rooms) for offsets in places]
    best = sizes.index(min(sizes))
    return ChainArena(sizes[best], places[best], tuple(_moments(chain, rooms)))


def _placed(rooms: Sequence[Room]) -> dict[str, int]:
    """Each at the lowest place that is free while it is needed."""
    offsets: dict[str, int] = {}
    placed: list[Room] = []
    for room in rooms:
        others = [one for one in placed if one.first <= room.last and room.first <= one.last]
        offset = 0
        for other in sorted(others, key=lambda one: offsets[one.name]):
            if offsets[other.name] < offset + room.size and offset < offsets[other.name] + other.size:
                offset = offsets[other.name] + other.size
        offsets[room.name] = offset
        placed.append(room)
    return offsets


def _moments(chain: Chain, rooms: list[Room]) -> Iterator[Moment]:
    """The largest moment of each part of the network."""
    for stage, numbers in groupby(range(len(chain.steps)), lambda number: chain.steps[number].stage):
        moments = []
        for number in numbers:
            alive = [room for room in rooms if room.first <= number <= room.last]
            sums = {kind: sum(room.size for room in alive if room.kind == kind) for kind in ("float", "count", "sign")}
            moments.append(Moment(stage, sums["float"], sums["count"], sums["sign"]))
        yield max(moments, key=lambda moment: moment.total)


def rooms_of(chain: Chain) -> Iterator[Room]:
    """Of every map, and of what every step needs for itself."""
    for name in chain.channels:
        used = [i for i, step in enumerate(chain.steps) if name in (step.source, step.target)]
        if name != LOGITS:
            step = chain.steps[used[0]]
            pixels, channels = step.out_size**2, chain.channels[name]
            kind = "sign" if is_signs(step) else "float"
            size = 4 * pixels * (num_words(channels) if kind == "sign" else channels)
            yield Room(name, kind, size, used[0], used[-1])
    for index, step in enumerate(chain.steps):
        size = _scratch_bytes(chain, step)
        if size:
            kind = "count" if isinstance(step, BinaryStep) else "float"
            yield Room(scratch_of(step), kind, size, index, index)


def needs_pixels(step: ShortcutStep) -> bool:
    """Does its convolution read pixels that are made for it alone?"""
    return step.weight is not None and (step.pools or step.clips)


def is_signs(step: ChainStep) -> bool:
    """Does the step write packed signs, not floats?"""
    return isinstance(step, SignStep) or (isinstance(step, BinaryStep | StemStep) and step.signs is not None)


def _scratch_bytes(chain: Chain, step: ChainStep) -> int:
    if isinstance(step, StemStep):
        return _stem_bytes(chain, step)
    if isinstance(step, ShortcutStep) and needs_pixels(step):
        return 4 * PIXELS * step.channels[0]
    if isinstance(step, HeadStep) and (step.averages or step.steps is not None):
        return round_up(len(step.weight[0]) * (4 if step.averages else 1), 4)
    if isinstance(step, BinaryStep) and step.source == IMAGE:
        return round_up(step.weights.channels * step.size**2, 4)
    return 0


def _stem_bytes(chain: Chain, step: StemStep) -> int:
    """Of the image and of each convolution the rows that the next layer's window sees; a row of floats that become signs."""
    size, channels, total = step.size, chain.spec.input_channels, 0
    windows = [(conv.weight.shape[2], conv.stride) for conv in step.convs] + [(3 if step.pools else 1, 1)]
    each = 4 if step.convs[0].scale is None else 1
    for window, conv in zip(windows, [*step.convs, None], strict=True):
        total += window_bytes(each * channels, size, *window)
        if conv is not None:
            size, channels = (size - 1) // conv.stride + 1, len(conv.weight)
    return total + (4 * step.out_size * channels if step.signs is not None else 0)
