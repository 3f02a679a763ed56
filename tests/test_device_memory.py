"""RAM and flash: arithmetic on the layers, and what the C library really takes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import pytest
from conftest import Cli, at_size, dense_specs
from hypothesis import given
from test_export_c import SMALL, small
from test_export_c_chain import CHAINS, spec_of

from meliuscli.arch.families.dense import DenseFamilySpec
from meliuscli.arch.zoo import load_name, zoo_table
from meliuscli.counting.analytic import count_spec
from meliuscli.counting.memory import PIXELS, Memory, memory_of
from meliuscli.errors import BadInputError
from meliuscli.export.c import arena
from meliuscli.export.c.arena import plan_arena
from meliuscli.export.c.chain import Chain
from meliuscli.export.c.chain_arena import plan_chain, rooms_of
from meliuscli.export.c.chain_fold import fold_chain
from meliuscli.export.c.chain_sources import chain_tables
from meliuscli.export.c.float_network import runner_for_c
from meliuscli.export.c.int8_run import Int8Network
from meliuscli.export.c.sources import template
from meliuscli.export.c.tables import ConstTable, make_tables, plain
from meliuscli.export.c.vectors import noise
from meliuscli.export.c.writer import parts_of
from meliuscli.nn.build import build
from meliuscli.packed.convs import fold_convs
from meliuscli.packed.dense import fold_dense
from meliuscli.search.limits import check_limits, flash_limit, ram_limit
from meliuscli.search.space import load_space


@given(dense_specs())
def test_arithmetic_is_the_c_library(spec: DenseFamilySpec) -> None:
    """To the byte, part by part; test_export_c.py holds the library's own figures against what compilers make of it."""
    memory, planned = memory_of(spec), plan_arena(spec)
    assert [(part.part, part.total) for part in memory.parts] == [(part.part, part.total) for part in planned.moments]
    assert memory.ram_bytes == planned.size
    tables = make_tables(spec, fold_dense(build(spec).eval(), spec))
    assert memory.flash_bytes == sum(table.values.nbytes for table in tables)
    assert flash_by_block(memory) == flash_of_tables(tables, memory)


def flash_by_block(memory: Memory) -> dict[str, int]:
    return {name: flash for name, (_, flash) in memory.by_part("block").items() if flash}


def flash_of_tables(tables: Sequence[ConstTable], memory: Memory) -> dict[str, int]:
    """What the constants take of each block and part, by the names that they have in C."""
    sums: Counter[str] = Counter()
    for table in tables:
        owners = [name for name in memory.by_part("block") if table.name.startswith(f"{plain(name)}_")]
        owner = max(owners, key=len)
        sums["input_norm" if "_image_" in table.name and "input_norm" in memory.by_part("block") else owner] += (
            table.values.nbytes
        )
    return dict(sums)


def ram_of_steps(chain: Chain, memory: Memory) -> dict[str, int]:
    """The most that is alive in each block and part, from where the arena has its maps."""
    needed: dict[str, int] = {}
    for number, step in enumerate(chain.steps):
        owners = [name for name in memory.by_part("block") if f"{step.name}.".startswith(f"{name}.")]
        name = max(owners, key=len, default="")
        alive = sum(room.size for room in rooms_of(chain) if room.first <= number <= room.last)
        needed[name] = max(needed.get(name, 0), alive)
    return needed


@pytest.mark.parametrize("key", [*CHAINS, "wide"])
def test_arithmetic_is_the_c_library_of_a_chain(key: str) -> None:
    spec = at_size("tfc", 28, "hidden=[33000, 8]") if key == "wide" else spec_of(key)
    network = build(spec).eval()
    chain = fold_chain(network, spec, fold_convs(network))
    memory, planned = memory_of(spec), plan_chain(chain)
    parts = [(part.part, part.float_bytes, part.integer_bytes, part.sign_bytes) for part in memory.parts]
    assert parts == [(one.part, one.float_bytes, one.count_bytes, one.sign_bytes) for one in planned.moments]
    assert memory.ram_bytes == planned.size
    assert memory.flash_bytes == sum(table.values.nbytes for table in chain_tables(chain))
    assert flash_by_block(memory) == flash_of_tables(chain_tables(chain), memory)
    blocks = {name: alive.total for name, (alive, _) in memory.by_part("block").items() if alive.total}
    assert blocks == {name: size for name, size in ram_of_steps(chain, memory).items() if name}


@pytest.mark.parametrize("name", zoo_table())
def test_every_row_of_a_count_has_its_ram_and_flash(name: str) -> None:
    spec = load_name(name)
    memory = memory_of(spec)
    for by in ("stage", "block"):
        parts = memory.by_part(by)
        assert set(parts) == {row.name for row in count_spec(spec).rows(by)}
        assert sum(flash for _, flash in parts.values()) == memory.flash_bytes
        assert max(alive.total for alive, _ in parts.values()) == memory.ram_bytes
    assert memory.by_part("layer") == {}


def test_ram_and_flash_are_columns_where_there_is_room(cli: Cli) -> None:
    """The shape of the output goes first; where nothing has room, CSV and JSON have it all."""
    table = cli("count", "meliusnet22", "--no-verify", "--by", "block").stdout.splitlines()
    assert table[1].split()[-3:] == ["bytes", "RAM", "flash"]
    assert "output" not in table[1]
    total = next(line for line in table if line.startswith("total")).split()
    memory = memory_of(load_name("meliusnet22"))
    assert total[-2:] == [f"{memory.ram_bytes:,}", f"{memory.flash_bytes:,}"]
    value = json.loads(cli("count", "meliusnet22", "--no-verify", "--by", "block", "--format", "json").stdout)
    assert [part["part"] for part in value["memory"]["parts"]] == [row["name"] for row in value["rows"]]
    assert sum(part["flash_bytes"] for part in value["memory"]["parts"]) == value["memory"]["flash_bytes"]
    assert "RAM" not in cli("count", "meliusnet22", "--no-verify", "--by", "layer").stdout.splitlines()[1]


@pytest.mark.parametrize("key", ["groups", "one-stage", *(key for key in CHAINS if key not in ("tfc", "cnv"))])
def test_arithmetic_is_the_c_library_with_stem_and_head_in_int8(key: str) -> None:
    spec = small(key) if key in SMALL else spec_of(key)
    runner = runner_for_c(build(spec).eval(), spec)
    parts = parts_of(runner, "net", Int8Network(runner, noise(spec, 1)), seeds=())
    memory = memory_of(spec, 8)
    assert [(part.part, part.total) for part in memory.parts] == [
        (moment.part, moment.total) for moment in parts.arena.moments
    ]
    assert memory.ram_bytes == parts.arena.size
    assert memory.flash_bytes == sum(table.values.nbytes for table in parts.tables)
    assert "--float-bits 8" in memory.legend


@pytest.mark.parametrize("name", ["tfc", "cnv", "bnext-t"])
def test_other_bits_and_networks_without_such_a_library_change_nothing(name: str) -> None:
    assert memory_of(load_name(name), 8) == memory_of(load_name(name))
    assert memory_of(load_name("meliusnet22"), 16) == memory_of(load_name("meliusnet22"))


@pytest.mark.parametrize("name", [name for name in zoo_table() if isinstance(load_name(name), DenseFamilySpec)])
def test_maps_of_a_stage_lie_apart(name: str) -> None:
    """Of two stages that are there at once, and of what works between them."""
    planned = plan_arena(load_name(name))  # type: ignore[arg-type]
    for place, following in zip(planned.places, [*planned.places[1:], None], strict=True):
        own = [(place.floats, 4 * place.stage.size**2 * place.num_floats)]
        own.append((place.counts, 2 * place.stage.size**2 * place.num_counts))
        scratch = 4 * place.stage.channels * (2 if following is None else PIXELS)
        regions = [*own, (place.scratch, scratch)]
        if following is not None:
            regions.append((following.floats, 4 * following.stage.size**2 * following.num_floats))
        regions.sort()
        assert all(a + size <= b for (a, size), (b, _) in pairwise(regions))
        assert regions[-1][0] + regions[-1][1] <= planned.size


def test_the_constants_that_both_sides_know() -> None:
    assert f"#define NET_PIXELS {PIXELS}\n" in template("common.h", "net")
    assert arena.PIXELS == PIXELS


@pytest.mark.parametrize("name", zoo_table())
def test_every_network_has_a_peak(name: str) -> None:
    """No less than the largest map, no more than all of them; constants about as large as the weights."""
    spec = load_name(name)
    memory = memory_of(spec)
    maps = [4 * layer.out_channels * layer.out_size**2 for layer in spec.layers()]
    assert all(part.total > 0 for part in memory.parts)
    assert max(maps) / (40 if memory.is_c else 4) < memory.ram_bytes < 1.5 * sum(maps)
    stages = dict.fromkeys(layer.stage for layer in spec.layers())
    if memory.is_c:
        stages.pop("input_norm", None)  # which the stem does while it reads the image
    assert [part.part for part in memory.parts] == list(stages)


def test_a_residual_block_keeps_what_came_in() -> None:
    """A binary convolution reads signs beside the block's input and its output; in C it adds to the block's input, and so does
    ResNet's second one, which reads a map of its own."""
    names = ("resnet18", "real2binary", "birealnet18")
    float_in_c, binary, in_c = (memory_of(at_size(name, 64)).parts[1] for name in names)
    one = 4 * 64 * 16**2
    assert float_in_c.total == 2 * one
    assert (binary.float_bytes, binary.sign_bytes) == (2 * one, one // 32)
    assert (in_c.float_bytes, in_c.sign_bytes) == (one, one // 32)  # which adds to where the input lies


def test_limits_of_count(cli: Cli) -> None:
    spec = load_name("meliusnet22")
    memory = memory_of(spec)
    command = ["count", "meliusnet22", "--no-verify"]
    assert cli(*command, "--max-ram", str(memory.ram_bytes), "--max-flash", str(memory.flash_bytes)).returncode == 0
    above = cli(*command, "--max-ram", "256KiB", "--max-flash", "1MiB")
    assert above.returncode == 1
    assert "bytes of RAM are more than --max-ram 262,144" in above.stderr
    assert "bytes of flash are more than --max-flash 1,048,576" in above.stderr


def test_what_is_estimated_is_called_so(cli: Cli) -> None:
    """Where an export writes the network as C its figures are exact, and nowhere else."""
    exact, estimate = (cli("count", name, "--no-verify", "--max-ram", "64") for name in ("tfc", "quicknet"))
    assert (exact.returncode, estimate.returncode) == (1, 1)
    assert "RAM 108 bytes in stem" in exact.stdout
    assert "108 bytes of RAM are more than" in exact.stderr
    assert "RAM about " in estimate.stdout
    assert "bytes of RAM (an estimate: no export writes this network as C) are more than" in estimate.stderr
    page = cli("explain", "memory").stdout
    assert all(word in page for word in ("arena", "flash", "An estimate are both"))


def test_memory_in_json(cli: Cli) -> None:
    memory = json.loads(cli("count", "meliusnet22", "--no-verify", "--format", "json").stdout)["memory"]
    assert memory["ram_bytes"] == max(part["total_bytes"] for part in memory["parts"])
    assert memory["order"] == "c"


def test_a_search_stays_within_ram_and_flash() -> None:
    """At the input that the network is meant for: a space has networks within a limit, or the nearest one is named."""
    _, space, _ = load_space("meliusnet")
    smallest = memory_of(space.smallest.spec)
    limits = [ram_limit(smallest.ram_bytes), flash_limit(smallest.flash_bytes)]
    assert all(limit.holds(space.smallest) for limit in limits)
    check_limits(space, limits)
    with pytest.raises(BadInputError, match=r"within --max-ram 64\.0 KiB of RAM and --max-flash"):
        check_limits(space, [ram_limit(65536), flash_limit(1e9)])
