"""A network's tensors as the tables of the C library: values in the order that its kernels read them in, and as C."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from meliuscli.arch.families.dense import DenseFamilySpec
from meliuscli.arch.families.units import DenseUnit
from meliuscli.arch.plan import STEM
from meliuscli.export.c.arena import count_bits, entering
from meliuscli.export.c.int8 import Ends
from meliuscli.export.c.literals import c_float
from meliuscli.packed.dense import Tensors, shuffled
from meliuscli.packed.program import Array

BLOCK = 16
"""Output channels whose weights lie side by side: ``MELIUS_BLOCK``."""
NUMBERS_A_LINE = 10


@dataclass(frozen=True, slots=True)
class ConstTable:
    """A constant array. ``name`` is that of the layer and of what it is."""

    name: str
    values: Array

    @property
    def ctype(self) -> str:
        return "float" if self.values.dtype == np.float32 else f"{self.values.dtype.name}_t"

    def text(self, prefix: str) -> str:
        """The definition."""
        numbers = (
            [c_float(value) for value in self.values.tolist()]
            if self.ctype == "float"
            else [f"{value}{'u' if self.values.dtype.kind == 'u' else ''}" for value in self.values.tolist()]
        )
        lines = [", ".join(numbers[i : i + NUMBERS_A_LINE]) for i in range(0, len(numbers), NUMBERS_A_LINE)]
        body = ",\n    ".join(lines)
        return f"const {self.ctype} {prefix}_{self.name}[{len(numbers)}] = {{\n    {body}}};\n"

    def declaration(self, prefix: str) -> str:
        return f"extern const {self.ctype} {prefix}_{self.name}[{len(self.values)}];\n"


def plain(name: str) -> str:
    """A layer's name as part of a C name."""
    return name.replace(".", "_")


def in_c_blocks(weights: Array) -> Array:
    """(outputs, taps) -> tap after tap of 16 outputs side by side, then of the next 16; no more values than before."""
    blocks = [weights[first : first + BLOCK].T.reshape(-1) for first in range(0, len(weights), BLOCK)]
    return np.concatenate(blocks)


def make_tables(spec: DenseFamilySpec, tensors: Tensors, int8: Ends | None = None) -> tuple[ConstTable, ...]:
    """All constants of a network, in the order in which they are used; with stem and head in ``int8`` where that is given."""
    return tuple(_tables(spec, tensors, int8))


def _stem_tables(spec: DenseFamilySpec, tensors: Tensors, int8: Ends | None) -> Iterator[ConstTable]:
    if int8 is None:
        for layer in spec.layers():
            if layer.stage == STEM and layer.kind == "conv":
                yield ConstTable(plain(f"{layer.name}.weights"), tensors[f"{layer.name}.weight"].reshape(-1))
                yield ConstTable(plain(f"{layer.name}.bias"), tensors[f"{layer.name}.bias"])
        return
    for conv in int8.stem.convs:
        assert conv.scale is not None
        yield ConstTable(plain(f"{conv.name}.weights"), conv.weight.reshape(-1))
        yield ConstTable(plain(f"{conv.name}.scale"), conv.scale)
        yield ConstTable(plain(f"{conv.name}.bias"), conv.bias)
    for name, affine in (("image", int8.stem.before), ("stem_out", int8.stem.behind)):
        assert affine is not None
        yield ConstTable(f"{name}_scale", affine[0])
        yield ConstTable(f"{name}_shift", affine[1])


def _tables(spec: DenseFamilySpec, tensors: Tensors, int8: Ends | None) -> Iterator[ConstTable]:
    yield from _stem_tables(spec, tensors, int8)
    for stage, num_floats in zip(spec.stages(), entering(spec), strict=True):
        for unit in stage.units:
            yield from _unit_tables(unit, num_floats, count_bits(spec), tensors)
        if stage.transition is not None:
            name, channels, _, groups, *_ = stage.transition
            yield from _norm_tables(name, tensors)
            weights = np.split(tensors[f"{name}.conv.weight"], groups)
            yield ConstTable(f"{name}_weights", np.concatenate([in_c_blocks(group) for group in weights]))
            if groups > 1:
                yield ConstTable(f"{name}_order", shuffled(channels).astype(np.uint16))
    yield from _norm_tables("head", tensors)
    if int8 is None:
        yield ConstTable("head_weights", in_c_blocks(tensors["head.fc.weight"]))
    else:
        assert int8.head.steps is not None
        yield ConstTable("head_weights", int8.head.weight.reshape(-1))
        yield ConstTable("head_steps", int8.head.steps)
    yield ConstTable("head_bias", tensors["head.fc.bias"])


def _norm_tables(name: str, tensors: Tensors) -> Iterator[ConstTable]:
    yield ConstTable(f"{name}_scale", tensors[f"{name}.bn.scale"])
    yield ConstTable(f"{name}_shift", tensors[f"{name}.bn.shift"])


def _unit_tables(unit: DenseUnit, num_floats: int, bits: int, tensors: Tensors) -> Iterator[ConstTable]:
    name = plain(unit.name)
    words = tensors[f"{unit.name}.conv.words"]
    yield ConstTable(f"{name}_weights", in_c_blocks(words.reshape(len(words), -1)))
    thresholds = tensors[f"{unit.name}.conv.thresholds"]
    yield ConstTable(f"{name}_float_thresholds", thresholds[:num_floats])
    if unit.channels > num_floats:
        yield ConstTable(f"{name}_count_thresholds", whole_thresholds(thresholds[num_floats:], bits))
    yield ConstTable(f"{name}_flips", tensors[f"{unit.name}.conv.flips"])


def whole_thresholds(values: Array, bits: int) -> Array:
    """What a count must at least be to be at least the float threshold; the largest number where none is."""
    most = 2**bits - 1
    with np.errstate(invalid="ignore"):
        whole = np.clip(np.ceil(values.astype(np.float64)), 0, most)
    return np.where(np.isnan(values), most, whole).astype(f"uint{bits}")


def weights_source(prefix: str, tables: Sequence[ConstTable]) -> str:
    """``weights.c``."""
    texts = [table.text(prefix) for table in tables]
    needs = "#include <math.h> /* for INFINITY, which is a constant */\n" if any("INFINITY" in t for t in texts) else ""
    return f'/* Weights, thresholds and scales. */\n#include "weights.h"\n{needs}\n' + "\n".join(texts)


def weights_header(prefix: str, tables: Sequence[ConstTable]) -> str:
    """``weights.h``."""
    guard = f"{prefix.upper()}_WEIGHTS_H"
    opening = (
        f'#ifndef {guard}\n#define {guard}\n\n#include <stdint.h>\n\n#ifdef __cplusplus\nextern "C" {{\n#endif\n\n'
    )
    closing = "\n#ifdef __cplusplus\n}\n#endif\n#endif\n"
    return opening + "".join(table.declaration(prefix) for table in tables) + closing
