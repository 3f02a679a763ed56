"""What is a network's own in its C library: tables, kernels, the memory that it needs, and what it answers to the test vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from meliuscli.export.c.arena import Arena, count_bits, plan_arena
from meliuscli.export.c.chain_arena import ChainArena, plan_chain
from meliuscli.export.c.chain_fold import fold_chain
from meliuscli.export.c.chain_sources import ChainSource, chain_tables, level_type
from meliuscli.export.c.float_network import CNetwork, FloatNetwork
from meliuscli.export.c.int8_run import Int8Network
from meliuscli.export.c.sources import network_source
from meliuscli.export.c.tables import ConstTable, make_tables
from meliuscli.export.c.vectors import SEEDS, Expected, chain_answer, noise, packed_answer
from meliuscli.packed.runner import PackedDense, PackedModule


@dataclass(frozen=True, slots=True)
class CParts:
    """What is a network's own in its library. ``count`` is C's type of what its binary layers count, ``counts`` says what that
    is; ``kernels`` names the templates of its kernels, in which ``level`` is the type of a threshold."""

    arena: Arena | ChainArena
    tables: Sequence[ConstTable]
    source: str
    units: int
    count: str
    counts: str
    kernels: str
    level: str
    answers: Sequence[tuple[int, Expected]]


def parts_of(runner: CNetwork, prefix: str, int8: Int8Network | None = None, seeds: Sequence[int] = SEEDS) -> CParts:
    """The parts of a network, with an answer for the noise of each seed; ``int8`` is the same with stem and head in 8 bits."""
    if isinstance(runner, PackedDense):
        return _dense_parts(runner, prefix, int8, seeds)
    return _chain_parts(runner, prefix, int8, seeds)


def _dense_parts(runner: PackedDense, prefix: str, int8: Int8Network | None, seeds: Sequence[int]) -> CParts:
    spec, bits = runner.spec, count_bits(runner.spec)
    ends = None if int8 is None else int8.ends
    arena, tables = plan_arena(spec, 4 if int8 is None else 1), make_tables(spec, runner.tensors, ends)
    images = [(seed, noise(spec, seed)) for seed in seeds]
    return CParts(
        arena,
        tables,
        network_source(spec, prefix, arena, tables, 1.0 if ends is None else ends.head.inverse),
        sum(len(place.stage.units) for place in arena.places),
        f"uint{bits}_t",
        "What a binary convolution counts, and the sum of two such.",
        "dense",
        f"uint{bits}_t",
        [(seed, packed_answer(runner, image) if int8 is None else int8.answer(image)) for seed, image in images],
    )


def _chain_parts(runner: CNetwork, prefix: str, int8: Int8Network | None, seeds: Sequence[int]) -> CParts:
    assert isinstance(runner, PackedModule | FloatNetwork)
    chain = fold_chain(runner.network, runner.spec, runner.weights) if int8 is None else int8.chain
    arena = plan_chain(chain)
    return CParts(
        arena,
        chain_tables(chain),
        ChainSource(chain, prefix, arena).text(),
        len(chain.binary),
        "int32_t",
        "What a binary layer counts: a dot product of signs, or how many are equal.",
        "chain",
        level_type(chain),
        [(seed, chain_answer(chain, noise(chain.spec, seed))) for seed in seeds],
    )
