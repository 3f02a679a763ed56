"""Where everything lies in the arena of the C library: the maps of two neighbouring stages at its two ends, and what a step
needs for itself between them."""

from __future__ import annotations

from dataclasses import dataclass

from meliuscli.arch.families.dense import DenseFamilySpec
from meliuscli.arch.families.units import DenseStage, DenseUnit
from meliuscli.arch.plan import HEAD, STEM
from meliuscli.packed.layout import num_words, round_up

PIXELS = 8
"""Of a float 1x1 convolution together: ``MELIUS_PIXELS``."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What is alive while one part of the network runs, in bytes: float maps, maps of counts, and packed signs."""

    part: str
    float_bytes: int
    count_bytes: int = 0
    sign_bytes: int = 0

    @property
    def total(self) -> int:
        return self.float_bytes + self.count_bytes + self.sign_bytes


@dataclass(frozen=True, slots=True)
class StagePlace:
    """Byte offsets of a stage's float map, of its map of counts, of what its binary layers may use, and of what the
    transition or head behind it may use."""

    stage: DenseStage
    num_floats: int
    floats: int
    counts: int
    signs: int
    scratch: int

    @property
    def num_counts(self) -> int:
        return self.stage.channels - self.num_floats


@dataclass(frozen=True, slots=True)
class Arena:
    """The whole arena, and the moments that its size is the largest of. The stem's rows begin at ``stem_scratch``."""

    places: tuple[StagePlace, ...]
    stem_scratch: int
    moments: tuple[Moment, ...]

    @property
    def size(self) -> int:
        return max(moment.total for moment in self.moments)


def count_bits(spec: DenseFamilySpec) -> int:
    """Bits of a sum of a DenseBlock's count and an ImprovementBlock's; the largest number stands for "never"."""
    most = max(9 * unit.channels for stage in spec.stages() for unit in stage.units)
    return 16 if most * (2 if spec.improvement else 1) < 2**16 - 1 else 32


def plan_arena(spec: DenseFamilySpec, stem_bytes: int = 4) -> Arena:
    """Stages of even number lie at the bottom, the others at the top; each is there until the next one is entered.
    ``stem_bytes`` are those of a value between the layers of the stem."""
    stages = [
        _StageBytes(spec, stage, num_floats) for stage, num_floats in zip(spec.stages(), entering(spec), strict=True)
    ]
    moments = [Moment(STEM, stages[0].floats + _stem_rows(spec, stem_bytes))]
    for stage, following in zip(stages, [*stages[1:], None], strict=True):
        moments.append(Moment(stage.stage.name, stage.floats, stage.counts, stage.signs))
        behind = stage.scratch + (0 if following is None else following.floats)
        transition = stage.stage.transition
        moments.append(Moment(HEAD if transition is None else transition.name, stage.floats + behind, stage.counts))
    size = max(moment.total for moment in moments)
    places = []
    for index, (stage, following) in enumerate(zip(stages, [*stages[1:], None], strict=True)):
        maps = stage.floats + stage.counts
        if index % 2 == 0:
            place = StagePlace(stage.stage, stage.num_floats, 0, stage.floats, maps, maps)
        else:
            behind = 0 if following is None else following.floats
            place = StagePlace(stage.stage, stage.num_floats, size - stage.floats, size - maps, 0, behind)
        places.append(place)
    return Arena(tuple(places), stages[0].floats, tuple(moments))


def entering(spec: DenseFamilySpec) -> tuple[int, ...]:
    """The float channels that enter each stage."""
    return spec.stem_channels, *spec.transition_channels


class _StageBytes:
    """Bytes of a stage's maps and of what its steps use besides: two rows of signs more than a window is high apart from
    its own, for what lies outside; float pixels of a transition or head."""

    def __init__(self, spec: DenseFamilySpec, stage: DenseStage, num_floats: int) -> None:
        self.stage, self.num_floats = stage, num_floats
        pixels = stage.size**2
        self.floats = 4 * pixels * num_floats
        self.counts = round_up(pixels * (stage.channels - num_floats) * count_bits(spec) // 8, 4)
        self.signs = max(_sign_rows(unit) for unit in stage.units)
        self.scratch = 4 * stage.channels * (2 if stage.transition is None else PIXELS)


def _sign_rows(unit: DenseUnit) -> int:
    """The rows that a dilated window spans, and one of what lies outside."""
    return 4 * (2 * unit.dilation + 2) * (unit.size + 2 * unit.dilation) * num_words(unit.channels)


def _stem_rows(spec: DenseFamilySpec, each: int) -> int:
    """Of the image and of each convolution the rows that the next layer's window sees, with what is outside of them."""
    layers = [layer for layer in spec.layers() if layer.stage == STEM and layer.kind in ("conv", "max_pool")]
    widths = [spec.input_size, *(layer.out_size for layer in layers if layer.kind == "conv")]
    channels = [spec.input_channels, *(layer.out_channels for layer in layers if layer.kind == "conv")]
    windows = [(layer.kernel, layer.stride if layer.kind == "conv" else 1) for layer in layers]
    windows += [(1, 1)] * (len(widths) - len(windows))
    return sum(
        window_bytes(each * count, width, *window)
        for width, count, window in zip(widths, channels, windows, strict=True)
    )


def window_bytes(pixel: int, width: int, kernel: int, parities: int) -> int:
    """Of the rows that a window sees of a map, with what is outside of them; ``pixel`` is the bytes of all channels of one.
    Columns lie in ``parities`` groups, each of those that a stride of so many sees together."""
    row = -(-width // parities) + 2 * -(-(kernel // 2) // parities)
    return round_up(pixel * kernel * parities * row, 4)
