"""Test vectors of the C library: images that both sides make from a seed, and what the packed runner counts on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from meliuscli.arch.spec import ArchSpec
from meliuscli.data.preprocessing import Preprocessing
from meliuscli.export.c.chain import Chain
from meliuscli.export.c.exact import Ran, run_chain
from meliuscli.export.c.literals import images_text
from meliuscli.packed.dense import DensePlan
from meliuscli.packed.program import Array, Program
from meliuscli.packed.runner import PackedDense

SEEDS = (1, 2, 3, 4)


@dataclass(frozen=True, slots=True)
class Expected:
    """Of one image: the class, a checksum of the logits' bits, and one of what each binary convolution counts."""

    top1: int
    logits: int
    units: tuple[int, ...]


def checksum(values: Array) -> int:
    """Of whole numbers in their order, modulo 2^32: every value and its place count."""
    flat = values.reshape(-1).astype(np.uint32)
    places = np.arange(flat.size, dtype=np.uint32) * np.uint32(2654435761) + np.uint32(1)
    return int(((flat + np.uint32(1)) * places).sum(dtype=np.uint32))


def checksum_of_floats(values: Array) -> int:
    """Of their bits; both zeros are one."""
    bits: Array = (values.astype(np.float32) + np.float32(0)).view(np.uint32)
    return checksum(bits)


def noise(spec: ArchSpec, seed: int) -> Tensor:
    """(1, channels, size, size) floats between -2 and 2: multiples of 2^-22 that depend on the seed and on their place."""
    channels, height, width = spec.input_shape
    x = np.uint32(seed) + np.arange(channels * height * width, dtype=np.uint32) * np.uint32(2654435761)
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    x ^= x >> np.uint32(16)
    values = ((x >> np.uint32(8)).astype(np.int32) - 2**23).astype(np.float32) / np.float32(2**22)
    return torch.from_numpy(values.reshape(1, *spec.input_shape))


def expected(logits: Array, sums: tuple[int, ...]) -> Expected:
    """Of logits and the checksums of the binary layers."""
    return Expected(int(logits.argmax()), checksum_of_floats(logits), sums)


def packed_answer(runner: PackedDense, image: Tensor) -> Expected:
    """What the packed runner says of one image, convolution by convolution."""
    plan, program = runner.plan(1)
    plan.images[..., : runner.spec.input_size] = image.numpy()
    sums = binary_sums(runner, plan, program, 0, len(plan.steps))
    return expected(plan.logits.data[0, 0, 0, : runner.spec.num_classes], sums)


def binary_sums(runner: PackedDense, plan: DensePlan, program: Program, first: int, last: int) -> tuple[int, ...]:
    """Run steps and take checksums of what their binary convolutions count."""
    units = {unit.name: unit for stage in runner.spec.stages() for unit in stage.units}
    sums = []
    for number in range(first, last):
        step = plan.steps[number]
        if step.kind != "binary":
            continue
        program.run(first, number + 1)
        first, unit = number + 1, units[step.layer]
        channel = unit.channels - unit.growth if unit.adds else unit.channels
        sums.append(checksum(plan.maps[unit.name].inner[..., channel : channel + unit.growth]))
    program.run(first, last)
    return tuple(sums)


def chain_answer(chain: Chain, image: Tensor) -> Expected:
    """What a chain says of one image, exactly."""
    ran = run_chain(chain, image.numpy())
    return expected(ran.logits[0], chain_sums(chain, ran))


def chain_sums(chain: Chain, ran: Ran) -> tuple[int, ...]:
    """The checksums of its binary layers."""
    return tuple(checksum(ran.counts[step.name]) for step in chain.binary)


def vectors_header(
    prefix: str, answers: Sequence[tuple[int, Expected]], how: Preprocessing | None, num_classes: int
) -> str:
    """``vectors.h``: (seed, answer) pairs, and ``images_text``."""
    upper, rows = prefix.upper(), []
    for seed, answer in answers:
        units = ", ".join(f"{value}u" for value in answer.units or (0,))  # C has no empty list
        rows.append(f"    {{{seed}u, {answer.top1}, {answer.logits}u, {{{units}}}}}")
    vectors = ",\n".join(rows)
    return f"""/* What the packed runner answers; images are made from the seeds. */
#ifndef {upper}_VECTORS_H
#define {upper}_VECTORS_H

#define {upper}_VECTORS {len(rows)}

static const struct {{
    uint32_t seed;
    int top1;
    uint32_t logits;
    uint32_t units[{upper}_UNITS > 0 ? {upper}_UNITS : 1];
}} {prefix}_vectors[{upper}_VECTORS] = {{
{vectors}}};

{images_text(prefix, how, num_classes)}
#endif
"""
