"""The C of a chain: its tables, and the function that runs its steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from meliuscli.export.c.chain import (
    IMAGE,
    LOGITS,
    BinaryStep,
    Chain,
    ChainStep,
    FloatStep,
    HeadStep,
    ShortcutStep,
    SignStep,
    StemStep,
)
from meliuscli.export.c.chain_arena import ChainArena, is_signs, needs_pixels, scratch_of
from meliuscli.export.c.literals import c_float
from meliuscli.export.c.tables import ConstTable, in_c_blocks, plain
from meliuscli.packed.program import Array


def chain_tables(chain: Chain) -> tuple[ConstTable, ...]:
    """All constants, in the order in which they are used."""
    level = level_type(chain).removesuffix("_t")
    return tuple(
        ConstTable(f"{plain(step.name)}_{name}", values.astype(level) if values.dtype == np.int32 else values)
        for step in chain.steps
        for name, values in _tables(step)
        if values is not None
    )


def level_type(chain: Chain) -> str:
    """C's type of a threshold of whole numbers, one more than the largest of which stands for never."""
    return "int16_t" if max((step.most for step in chain.binary), default=0) < np.iinfo(np.int16).max else "int32_t"


def _tables(step: ChainStep) -> Iterator[tuple[str, Array | None]]:
    if isinstance(step, StemStep):
        for number, conv in enumerate(step.convs):
            yield f"weights{number}", conv.weight.reshape(-1)
            yield f"scale{number}", conv.scale
            yield f"bias{number}", conv.bias
        for name, affine in (("image", step.before), ("norm", step.behind)):
            if affine is not None:
                yield f"{name}_scale", affine[0]
                yield f"{name}_shift", affine[1]
    if isinstance(step, FloatStep):
        yield "weights", in_c_blocks(step.weight.transpose(0, 2, 3, 1).reshape(len(step.weight), -1))
        yield "bias", step.bias
    if isinstance(step, ShortcutStep) and step.weight is not None:
        yield "weights", in_c_blocks(step.weight)
        yield "bias", step.bias
    if isinstance(step, HeadStep):
        is_int8 = step.steps is not None
        yield "weights", step.weight.reshape(-1) if is_int8 else in_c_blocks(step.weight)
        yield "steps", step.steps
        yield "bias", step.bias
    if isinstance(step, BinaryStep):
        words = step.weights.words
        yield "weights", in_c_blocks(words.reshape(len(words), -1))
        yield "scale", None if step.affine is None else step.affine[0]
        yield "shift", None if step.affine is None else step.affine[1]
        for name, values in zip(("gamma", "slope", "zeta"), step.act or (None,) * 3, strict=True):
            yield name, values
    if isinstance(step, StemStep | SignStep | BinaryStep) and step.signs is not None:
        yield "thresholds", step.signs.values
        yield "flips", step.signs.flips


class ChainSource:
    """Writes ``NAME.c``."""

    def __init__(self, chain: Chain, prefix: str, arena: ChainArena) -> None:
        self.chain, self.prefix, self.arena = chain, prefix, arena
        self.names = {table.name for table in chain_tables(chain)}

    def text(self) -> str:
        """The file."""
        head = [
            "/* The network: what its layers are, and where in the arena they work. */",
            f'#include "{self.prefix}.h"',
            '#include "kernels.h"',
            '#include "weights.h"',
            "",
        ]
        constants = [line for step in self.chain.steps for line in self._constant(step)]
        return "\n".join([*head, *constants, *self._run()]) + "\n"

    def _tables(self, step: ChainStep, *names: str) -> list[str]:
        """The tables of these names, NULL where the step has none."""
        found = [f"{plain(step.name)}_{name}" for name in names]
        return [f"{self.prefix}_{name}" if name in self.names else "NULL" for name in found]

    def _constant(self, step: ChainStep) -> Iterator[str]:
        name = f"{plain(step.name)}_step"
        values: Sequence[object]
        if isinstance(step, StemStep):
            rows = list(self._convs(step))
            yield f"static const {self.prefix}_plane_conv {name}_convs[{len(rows)}] = {{"
            yield ",\n".join(rows) + "};"
            kind = "stem"
            channels = self.chain.spec.input_channels
            values = [
                *(f"{name}_convs", len(rows), int(step.pools), step.pooling.border(step.sizes()[-1])[0]),
                *(channels, step.size, step.out_size),
                *self._tables(step, "image_scale", "image_shift", "norm_scale", "norm_shift", "thresholds", "flips"),
            ]
        elif isinstance(step, ShortcutStep):
            kind, (inputs, outputs) = "shortcut", step.channels
            values = [
                *self._tables(step, "weights", "bias"),
                *(inputs, outputs, int(step.pools), int(step.clips), step.size, step.out_size),
            ]
        elif isinstance(step, FloatStep):
            kind, (outputs, inputs, kernel, _) = "float_conv", step.weight.shape
            numbers = (inputs, outputs, kernel, step.stride, step.size, step.out_size, int(step.relu), int(step.adds))
            values = [*self._tables(step, "weights", "bias"), *numbers]
        elif isinstance(step, HeadStep):
            kind, pixels = "head", step.size**2
            channels = step.weight.shape[1] if step.averages else step.weight.shape[1] // pixels
            values = [*self._tables(step, "weights", "steps", "bias"), channels, pixels, len(step.weight)]
            values += [int(step.relu), int(step.averages), c_float(1.0 / pixels), c_float(step.inverse)]
        elif isinstance(step, BinaryStep):
            kind = "binary"
            tables = ("weights", "thresholds", "flips", "scale", "shift", "gamma", "slope", "zeta")
            values = [*self._tables(step, *tables), *_numbers(step)]
        else:
            return
        yield f"static const {self.prefix}_{kind} {name} = {{{', '.join(map(str, values))}}};"

    def _convs(self, step: StemStep) -> Iterator[str]:
        for number, (conv, size) in enumerate(zip(step.convs, step.sizes(), strict=False)):
            outputs, inputs, kernel, _ = conv.weight.shape
            before = conv.window.border(size)[0]
            numbers = (inputs, outputs, conv.groups, kernel, conv.stride, before, int(conv.relu))
            tables = self._tables(step, f"weights{number}", f"scale{number}", f"bias{number}")
            yield f"    {{{', '.join([*tables, *map(str, numbers)])}}}"

    def _run(self) -> Iterator[str]:
        prefix, number = self.prefix, 0
        given = f"const float *image, float *logits, {prefix}_cell *arena"
        yield f"\nvoid {prefix}_run({given})\n{{\n    {prefix}_run_watched(image, logits, arena, NULL, NULL);\n}}\n"
        yield f"void {prefix}_run_watched({given}, {prefix}_watch watch, void *context)\n{{"
        if not any(isinstance(step, BinaryStep) for step in self.chain.steps):
            yield "    (void)watch, (void)context;"
        for step in self.chain.steps:
            yield f"    {prefix}_run_{self._call(step, number)};"
            number += isinstance(step, BinaryStep)
        yield "}"

    def _call(self, step: ChainStep, number: int) -> str:
        constant = f"&{plain(step.name)}_step"
        source, target = self._real(step.source), self._real(step.target)
        scratch = self._real(scratch_of(step))
        if isinstance(step, StemStep):
            target, bits = (scratch, self._word(step.target)) if step.signs is not None else (target, "NULL")
            rows = scratch
            if step.signs is not None:
                rows = f"{scratch} + {step.out_size * self.chain.channels[step.target]}"
            return f"stem({constant}, image, {target}, {bits}, {rows})"
        if isinstance(step, SignStep):
            tables = ", ".join(self._tables(step, "thresholds", "flips"))
            return f"signs({source}, {tables}, {step.signs.channels}, {step.size**2}, {self._word(step.target)})"
        if isinstance(step, ShortcutStep):
            return f"shortcut({constant}, {source}, {target}, {scratch if needs_pixels(step) else 'NULL'})"
        if isinstance(step, FloatStep):
            return f"float_conv({constant}, {source}, {target})"
        if isinstance(step, HeadStep):
            return f"head({constant}, {source}, logits, {scratch})"
        out = f"{self._word(step.target)}, NULL" if is_signs(step) else f"NULL, {target}"
        watched = f"{number}, watch, context"
        if step.source == IMAGE:
            cells = f"(int8_t *)(void *){self._word(scratch_of(step))}"
            return f"pixels({constant}, image, {self._word(step.target)}, {cells}, {watched})"
        return f"binary({constant}, {self._word(step.source)}, {out}, {watched})"

    def _real(self, name: str) -> str:
        if name in (IMAGE, LOGITS):
            return name
        return f"&arena[{self.arena.offsets[name] // 4}].real" if name in self.arena.offsets else "NULL"

    def _word(self, name: str) -> str:
        return f"&arena[{self.arena.offsets[name] // 4}].word"


def _numbers(step: BinaryStep) -> tuple[int, ...]:
    own, window = step.weights, step.weights.window
    shape = (own.channels, own.outputs, window.kernel, window.stride, window.border(step.size)[0], own.pad_value)
    flags = (step.pools, step.norm_first, own.xnor, step.relu, step.adds)
    return *shape, step.size, step.out_size, *map(int, flags), step.steps
