"""MeliusNet (arXiv 2001.05936) and BinaryDenseNet (arXiv 1906.08637): stages of binary blocks on a growing map.

Both are stem, stages of blocks, a transition between two stages, head. A BinaryDenseNet block is a DenseBlock; a
MeliusNet block is a DenseBlock followed by an ImprovementBlock.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, Self, TypeGuard

from pydantic import Field, model_validator

from meliuscli.arch.families.parts import (
    GROUPED_STEM_MULTIPLE,
    THUMBNAIL,
    Stem,
    check_length,
    classifier_head,
    stem_layers,
)
from meliuscli.arch.families.units import DenseStage, DenseUnit, Transition, transition_layers, unit_layers
from meliuscli.arch.narrowing import narrow
from meliuscli.arch.plan import (
    Layer,
)
from meliuscli.arch.spec import ArchSpec, Count, Padding, PadValue, Width
from meliuscli.errors import SpecError


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
    small_images: ClassVar[Mapping[str, str | int]] = {**THUMBNAIL, "stem_pool": 3}
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

    def _check_stem(self) -> None:
        """A field without effect would make two names of one network."""
        if self.stem == "thumbnail" and self.stem_pool != type(self).model_fields["stem_pool"].default:
            raise SpecError("stem_pool", "the thumbnail stem has no pooling", "leave it out, or give it another stem")

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
        self._check_stem()
        return tuple(self._unroll())

    def _unroll(self) -> Iterator[Layer]:
        size = self.input_size
        for layer in self._stem():
            yield layer
            size = layer.out_size
        for stage in self._stages(size):
            for unit in stage.units:
                yield from unit_layers(unit)
            if stage.transition is not None:
                yield from transition_layers(stage.transition)
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
