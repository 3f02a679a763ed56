"""MeliusNet (arXiv 2001.05936) and BinaryDenseNet (arXiv 1906.08637): stages of binary blocks on a growing map.

Both are stem, stages of blocks, a transition between two stages, head. A BinaryDenseNet block is a DenseBlock; a
MeliusNet block is a DenseBlock followed by an ImprovementBlock.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, TypeGuard

from pydantic import Field, model_validator

from meliuscli.arch.families.parts import (
    GROUPED_STEM_MULTIPLE,
    THUMBNAIL,
    Stem,
    check_length,
    classifier_head,
    stem_layers,
)
from meliuscli.arch.narrowing import narrow
from meliuscli.arch.plan import (
    Layer,
    batch_norm,
    binary_conv,
    concat,
    conv_size,
    elementwise,
    place_name,
    placed,
    require_divides,
    require_size,
)
from meliuscli.arch.spec import ArchSpec, Count, Padding, PadValue, Width
from meliuscli.errors import SpecError


class DenseUnit(NamedTuple):
    """Batch norm, sign and binary 3x3 convolution of ``channels`` to ``growth``: a DenseBlock, whose output lies behind
    what it saw, or an ImprovementBlock, whose output is added to the last channels of that (``adds``)."""

    stage: str
    block: int
    channels: int
    growth: int
    size: int
    dilation: int
    adds: bool

    @property
    def kind(self) -> str:
        return "improvement" if self.adds else "dense"

    @property
    def name(self) -> str:
        return f"{place_name(self.stage, self.block)}.{self.kind}"


class Transition(NamedTuple):
    """Batch norm, max pooling of a map of ``size`` where it ``pools``, float 1x1 convolution."""

    name: str
    channels: int
    target: int
    groups: int
    size: int
    pools: bool

    @property
    def out_size(self) -> int:
        return conv_size(self.size, 2, 2, 0) if self.pools else self.size


class DenseStage(NamedTuple):
    """Units on a map of ``size`` that grows to ``channels``, and the transition behind it (None behind the last)."""

    name: str
    units: tuple[DenseUnit, ...]
    channels: int
    size: int
    transition: Transition | None


class DenseFamilySpec(ArchSpec):
    """Fields of both families. ``growth_rate`` and ``dilation`` accept one number for all stages; a stage whose
    dilation is larger than the one before it keeps its resolution (the transition does not pool). As input only,
    ``reduction`` (one divisor a transition) gives ``transition_channels`` rounded to multiples of 32."""

    later: ClassVar[tuple[str, ...]] = ("pad_value", "padding", "stem_pool")
    improvement: ClassVar[bool]
    ratios: ClassVar[Mapping[str, tuple[str, ...]]] = {"reduction": ("transition_channels",)}

    letters: ClassVar[Mapping[str, str]] = {
        "num_blocks": "",
        "growth_rate": "g",
        "transition_channels": "t",
        "groups": "/",
        "stem_channels": "s",
    }
    one_for_all: ClassVar[tuple[str, ...]] = ("growth_rate", "dilation")
    small_images: ClassVar[Mapping[str, str]] = THUMBNAIL
    widths: ClassVar[tuple[str, ...]] = ("stem_channels", "growth_rate", "transition_channels")

    num_blocks: Annotated[tuple[Count, ...], Field(min_length=1, max_length=64)]
    growth_rate: tuple[Width, ...]
    stem: Stem
    stem_channels: Width = 64
    transition_channels: tuple[Width, ...] = ()
    groups: Width = 1
    dilation: tuple[Width, ...]
    pad_value: PadValue = -1
    padding: Padding = "symmetric"
    stem_pool: Literal[2, 3] = 3

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, fields: Any) -> Any:
        """Bring the accepted shorthands into canonical form."""
        if not isinstance(fields, dict):
            return fields
        fields = {"growth_rate": 64, "dilation": 1, **fields}
        blocks = fields.get("num_blocks")
        stages = len(blocks) if isinstance(blocks, list | tuple) else 1
        for key in cls.one_for_all:
            if not isinstance(fields[key], list | tuple):
                fields[key] = (fields[key],) * stages
        if "reduction" in fields:
            fields["transition_channels"] = cls._from_reduction(fields)
            del fields["reduction"]
        return fields

    @staticmethod
    def _from_reduction(fields: dict[str, Any]) -> tuple[int, ...]:
        if "transition_channels" in fields:
            raise SpecError("reduction", "give either reduction or transition_channels, not both")
        try:
            reductions = [float(r) for r in fields["reduction"]]
            blocks, growth = list(fields["num_blocks"]), list(fields["growth_rate"])
            channels, widths = fields.get("stem_channels", 64), []
            for divisor, num, rate in zip(reductions, blocks, growth, strict=False):
                channels = round((channels + num * rate) / divisor / 32) * 32
                widths.append(channels)
        except (TypeError, ValueError, ZeroDivisionError, KeyError, OverflowError):
            raise SpecError("reduction", "must be a list of positive divisors, one for each transition") from None
        if len(reductions) != len(blocks) - 1:
            raise SpecError("reduction", f"needs {len(blocks) - 1} entries, one for each transition")
        return tuple(widths)

    def _check_lengths(self) -> None:
        stages = len(self.num_blocks)
        for key, wanted, what in (
            ("growth_rate", stages, "stage"),
            ("dilation", stages, "stage"),
            ("transition_channels", stages - 1, "transition"),
        ):
            check_length(key, getattr(self, key), wanted, what)

    @property
    def pools(self) -> tuple[bool, ...]:
        """For each transition: does it halve the map?"""
        return tuple(after <= before for before, after in pairwise(self.dilation))

    def narrowed(self, divisor: int) -> Self:
        """The same topology with every width divided by ``divisor`` (rounded up; the grouped stem's to a multiple of
        16) and the largest divisor of ``groups`` that still divides all transitions."""
        stem = narrow(self.stem_channels, divisor, GROUPED_STEM_MULTIPLE if self.stem == "grouped" else 1)
        growth = tuple(narrow(width, divisor) for width in self.growth_rate)
        targets = tuple(narrow(width, divisor) for width in self.transition_channels)
        entering = (stem, *targets)
        leaving = [entering[i] + self.num_blocks[i] * growth[i] for i in range(len(targets))]
        return self.replace(
            stem_channels=stem,
            growth_rate=growth,
            transition_channels=targets,
            groups=math.gcd(self.groups, *targets, *leaving),
        )

    def layers(self) -> tuple[Layer, ...]:
        self._check_lengths()
        return tuple(self._unroll())

    def _unroll(self) -> Iterator[Layer]:
        size = self.input_size
        for layer in self._stem():
            yield layer
            size = layer.out_size
        for stage in self._stages(size):
            for unit in stage.units:
                yield from _placed_unit(unit)
            if stage.transition is not None:
                yield from placed(_transition(stage.transition), stage.transition.name)
        yield from classifier_head(stage.channels, stage.size, self.num_classes, norm=True, relu=True)

    def _stem(self) -> Iterator[Layer]:
        return stem_layers(self, self.stem, self.stem_channels, pool=self.stem_pool)

    def stages(self) -> tuple[DenseStage, ...]:
        """The stages in order, for whoever builds the network or runs it."""
        *_, last = self._stem()
        return tuple(self._stages(last.out_size))

    def _stages(self, size: int) -> Iterator[DenseStage]:
        channels = self.stem_channels
        rows = zip(self.num_blocks, self.growth_rate, self.dilation, strict=True)
        for index, (num, growth, dilation) in enumerate(rows):
            name, units = f"stage{index + 1}", []
            for block in range(1, num + 1):
                units.append(DenseUnit(name, block, channels, growth, size, dilation, adds=False))
                channels += growth
                if self.improvement:
                    units.append(DenseUnit(name, block, channels, growth, size, dilation, adds=True))
            if index == len(self.transition_channels):
                yield DenseStage(name, tuple(units), channels, size, None)
                return
            target, pools = self.transition_channels[index], self.pools[index]
            transition = Transition(f"transition{index + 1}", channels, target, self.groups, size, pools)
            yield DenseStage(name, tuple(units), channels, size, transition)
            channels, size = target, transition.out_size


class MeliusNetSpec(DenseFamilySpec):
    """MeliusNet: every block is a DenseBlock and an ImprovementBlock. ``pad_value`` is what lies around a map of signs;
    larq-zoo's has 0, ``padding`` "same" in its stem, and ``stem_pool`` 2, the kernel of the stem's pooling."""

    improvement: ClassVar[bool] = True
    family: Literal["meliusnet"] = "meliusnet"
    stem: Stem = "grouped"


class BinaryDenseNetSpec(DenseFamilySpec):
    """BinaryDenseNet: DenseBlocks only; its paper uses the 7x7 stem. ``pad_value`` is what lies around a map of signs;
    larq-zoo's has 0, and ``padding`` "same" in its stem."""

    improvement: ClassVar[bool] = False
    family: Literal["binarydensenet"] = "binarydensenet"
    stem: Stem = "imagenet"


def runs_whole(spec: ArchSpec) -> TypeGuard[DenseFamilySpec]:
    """Is it a MeliusNet or BinaryDenseNet with BMXNet's borders and pooling, all of which has kernels of our own?"""
    if not isinstance(spec, DenseFamilySpec):
        return False
    return (spec.pad_value, spec.padding, spec.stem_pool) == (-1, "symmetric", 3)


@lru_cache(maxsize=2**14)
def _placed_unit(unit: DenseUnit) -> tuple[Layer, ...]:
    """Kept, since the networks of a search have most of their units in common."""
    return tuple(placed(_unit(unit), unit.stage, unit.block))


def _unit(unit: DenseUnit) -> Iterator[Layer]:
    yield batch_norm(f"{unit.kind}.bn", unit.channels, unit.size)
    yield binary_conv(f"{unit.kind}.conv", unit.channels, unit.growth, unit.size, dilation=unit.dilation)
    if unit.adds:
        yield elementwise(f"{unit.kind}.add", "add", unit.growth, unit.size)
    yield concat(f"{unit.kind}.concat", unit.channels + (0 if unit.adds else unit.growth), unit.size)


def _transition(transition: Transition) -> Iterator[Layer]:
    name, channels, target, groups, size, pools = transition
    require_divides("groups", groups, **{f"input_channels_of_{name}": channels, f"output_channels_of_{name}": target})
    yield batch_norm("bn", channels, size)
    if pools:
        require_size(size, 2, f"the pooling of {name}")
        yield Layer("pool", "max_pool", channels, channels, transition.out_size, kernel=2, stride=2)
    yield elementwise("relu", "relu", channels, transition.out_size)
    yield Layer("conv", "conv", channels, target, transition.out_size, groups=groups)
