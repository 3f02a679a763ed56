"""Counted networks, and how their counts are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from meliuscli.arch.published import Published, published_for
from meliuscli.arch.spec import ArchSpec
from meliuscli.counting.conventions import Convention, find_convention
from meliuscli.counting.counts import FLOAT_BITS, By, Count, NetworkCount, Storage
from meliuscli.counting.memory import Memory, memory_of
from meliuscli.report.recorded import Recorded

if TYPE_CHECKING:
    from meliuscli.counting.foreign import OwnCount
    from meliuscli.data.preprocessing import Preprocessing


@dataclass(frozen=True, slots=True)
class Counted:
    """A network by name with its count; ``spec`` is None for a module of the user's own, which has ``own``; what a run
    trained has ``run``. A directory of C has ``memory_bits``: 8 or 32, of the stem and head in it; a file
    may say its ``preprocessing``."""

    name: str
    spec: ArchSpec | None
    input_shape: tuple[int, ...]
    count: NetworkCount
    own: OwnCount | None = None
    run: Recorded | None = None
    memory_bits: int | None = None
    preprocessing: Preprocessing | None = None

    @property
    def published(self) -> tuple[Published, ...]:
        return () if self.spec is None else published_for(self.spec)

    def memory(self, storage: Storage) -> Memory | None:
        """What it needs of a device; None of a module of the user's own, whose layers have no order. A library that is there
        is of its own bits, whatever is asked of the size."""
        bits = storage.float_bits if self.memory_bits is None else self.memory_bits
        return None if self.spec is None else memory_of(self.spec, bits)


@dataclass(frozen=True, slots=True)
class View:
    """How counts are shown: the convention, the storage of parameters, and the bits that price float MACs (None: the
    convention's own)."""

    convention: Convention
    storage: Storage = Storage()  # noqa: RUF009
    float_bits: int | None = None

    def dearest_ops(self, own: OwnCount) -> float | None:
        """The total, were nothing assumed of the bits of a module of one's own that makes it cheaper."""
        return self.convention.derive(own.dearest.total, self.float_bits).ops

    def ops_with_linear(self, own: OwnCount) -> float | None:
        """As ``dearest_ops``, with the linear layers that the convention may leave out."""
        return replace(self.convention, linear=True).derive(own.dearest.total, self.float_bits).ops

    @property
    def size_legend(self) -> str:
        floats, values = self.storage.float_bits, self.storage.bn_params
        return (
            f"size: weights at their bits, others {floats} bits, {values} value{'s' * (values != 1)} a batch-norm"
            " channel; MiB = 2^20 bytes"
        )


def convention_notes(networks: Sequence[Counted], convention: Convention) -> tuple[str, ...]:
    """Where the convention says that it counts convolutions only: the convolutions that do the work of a dense layer."""
    if convention.linear:
        return ()
    said = []
    for network in networks:
        layers = [row for row in network.count.layers if row.macs]
        dense = [row for row in layers if row.is_conv_of_one_pixel]
        too = " (the classifier too)" if dense and dense[-1] is layers[-1] else ""
        said += [f"{len(dense)} of {network.name}{too}"] if dense else []
    if not said:
        return ()
    which = ", ".join(said) if len(said) <= MOST_NAMED else f"some of {len(said)} networks"
    return (f"convolutions whose output is one pixel, which do what a dense layer does, are counted: {which}",)


MOST_NAMED = 6
"""Networks of which a note speaks one by one."""


def make_view(convention: str, float_bits: int | None, bn_params: int | None) -> View:
    """How counts are shown, by a convention's name; what is None is the convention's own.

    Raises ``BadInputError`` for an unknown convention."""
    rule = find_convention(convention)
    values = rule.bn_params if bn_params is None else bn_params
    return View(rule, Storage(FLOAT_BITS if float_bits is None else float_bits, values), float_bits)


def shown_rows(count: NetworkCount, by: By) -> list[Count]:
    """By layer, those that have MACs, parameters or a map of another size; additions and activations go without saying."""
    rows = count.rows(by)
    if by != "layer":
        return list(rows)
    return [row for row in rows if row.macs or row.weights or row.kind.endswith("pool")]


def shape_text(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
