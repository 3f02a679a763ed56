"""C libraries of residual and small networks: the chain is held against torch layer by layer, and the library against the
chain, to the last bit."""

from __future__ import annotations

import json
import subprocess
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import at_size
from test_export_c import SANITIZED, STRICT, need, run
from torch import Tensor, nn

from meliuscli.arch.spec import ArchSpec
from meliuscli.counting.analytic import count_spec
from meliuscli.errors import BadInputError
from meliuscli.export.c.chain import BinaryStep, Chain, ChainStep, SignStep
from meliuscli.export.c.chain_fold import fold_chain, require_chained
from meliuscli.export.c.chain_sources import chain_tables
from meliuscli.export.c.compiled import compile_library
from meliuscli.export.c.exact import Maps, pixels_of, run_chain
from meliuscli.export.c.exact_floats import fma
from meliuscli.export.c.float_network import runner_for_c
from meliuscli.export.c.vectors import noise
from meliuscli.export.c.writer import CLibrary, make_library
from meliuscli.export.packed import load_packed, write_packed
from meliuscli.packed.bench import random_network
from meliuscli.packed.convs import fold_convs
from meliuscli.packed.selftest import _watched

RESIDUAL = ("stem_channels=16", "channels=[16,20,40]", "num_blocks=[2,1,1]")
VGG = "channels=[32,17,40,40,48,20]"
CHAINS = {
    "resnete": ("resnete18", 33, *RESIDUAL),
    "resnete-grouped": ("resnete18", 34, "stem=grouped", *RESIDUAL),
    "birealnet": ("birealnet18", 33, *RESIDUAL),
    "reactivated": ("birealnet18", 32, "reactivation=true", *RESIDUAL),
    "birealnet-same": ("birealnet18", 32, "padding=same", *RESIDUAL),
    "reactivated-same": ("birealnet18", 44, "padding=same", "reactivation=true", *RESIDUAL),
    "resnete-same": ("resnete18", 32, "padding=same", *RESIDUAL),
    "resnete-same+0": ("resnete18", 44, "padding=same", "pad_value=0", *RESIDUAL),
    "resnete-same+1": ("resnete18", 32, "padding=same", "pad_value=1", *RESIDUAL),
    "resnete+0": ("resnete18", 33, "pad_value=0", *RESIDUAL),
    "bottleneck": ("birealnet50", 33, "stem_channels=16", "channels=[32,48,80]", "num_blocks=[2,1,2]"),
    "wide-bottleneck": ("birealnet50", 32, "stem_channels=32", "channels=[32,32]", "num_blocks=[1,2]"),
    "resnet": ("resnet20", 9, "num_blocks=[1,2]", "channels=[20,16]"),
    "resnet-bottleneck": (
        "resnet18",
        33,
        "block=bottleneck",
        "channels=[16,40]",
        "num_blocks=[1,2]",
        "stem_channels=16",
    ),
    "thumbnail": ("birealnet20", 9, "num_blocks=[1,1,1]"),
    "vgg-small": ("vgg-small", 16, VGG),
    "vgg-small+1": ("vgg-small", 8, "pad_value=1", VGG),
    "vgg-small-1": ("vgg-small", 8, "pad_value=-1", VGG),
    "tfc": ("tfc", 6, "hidden=[64,33]"),
    "cnv": ("cnv", 36, "channels=[16,16,20,20,24,17]", "hidden=[33]"),
}


def spec_of(key: str) -> ArchSpec:
    name, size, *changes = CHAINS[key]
    return at_size(str(name), int(size), "num_classes=19", *map(str, changes))


@cache
def network_of(key: str) -> nn.Module:
    return random_network(spec_of(key), 1, seed=0)[0]


@cache
def chain_of(key: str) -> Chain:
    return fold_chain(network_of(key), spec_of(key), fold_convs(network_of(key)))


@cache
def chain_library(key: str) -> CLibrary:
    return make_library(runner_for_c(network_of(key), spec_of(key)), key, "net")


def images_of(key: str, count: int) -> Tensor:
    return torch.cat([noise(spec_of(key), seed) for seed in range(count)])


@pytest.mark.parametrize("key", CHAINS)
def test_the_library_is_the_chain_to_the_last_bit(key: str, tmp_path: Path) -> None:
    program = compile_library(chain_library(key), tmp_path, need("gcc"), "-std=c11", *STRICT, *SANITIZED)
    assert run(program).endswith("all 4 vectors are as expected\n")


@pytest.mark.parametrize("key", ["reactivated", "resnet", "vgg-small+1", "cnv"])
def test_with_clang_and_vectors_of_any_width(key: str, tmp_path: Path) -> None:
    for flags in (("-march=native",), ("-mavx2", "-mfma", "-mpopcnt")):
        program = compile_library(chain_library(key), tmp_path, need("clang"), "-std=c11", *STRICT, "-O2", *flags)
        assert run(program).endswith("all 4 vectors are as expected\n")


@pytest.mark.parametrize("key", ["resnete", "cnv"])
def test_it_is_cpp_too_and_calls_nobody(key: str, tmp_path: Path) -> None:
    compile_library(chain_library(key), tmp_path, need("g++", "nm", "size"), "-x", "c++", "-std=c++11", *STRICT)
    assert run(tmp_path / "vectors").endswith("all 4 vectors are as expected\n")
    objects = ["net.c", "kernels.c", "weights.c"]
    subprocess.run(["gcc", "-std=c11", "-O2", "-fno-pic", "-c", *objects], cwd=tmp_path, check=True)
    symbols = [line.split()[-2:] for name in objects for line in run("nm", tmp_path / f"{name[:-2]}.o").splitlines()]
    assert {kind for kind, _ in symbols} <= set("UTtRr")
    outside = {name for kind, name in symbols if kind == "U"} - {name for kind, name in symbols if kind in "TR"}
    assert outside <= {"memcpy", "memset"}
    sections = dict(line.split()[:2] for line in run("size", "-A", tmp_path / "weights.o").splitlines() if "." in line)
    # A compiler aligns tables to 32 bytes, which a very small network is not large against.
    spare = int(sections[".rodata"]) - chain_library(key).flash_bytes
    assert 0 <= spare < max(0.02 * chain_library(key).flash_bytes, 32 * len(chain_tables(chain_of(key))))


@pytest.mark.parametrize("key", CHAINS)
def test_fed_what_torch_feeds_them_all_layers_are_torchs(key: str) -> None:
    """Signs and whole numbers to the last one; and without being fed, top-1."""
    network, chain, images = network_of(key), chain_of(key), images_of(key, 8)
    with _watched(network) as seen, torch.inference_mode():
        logits = network(images).numpy()
    inputs: dict[str, np.ndarray] = {}

    def feed(step: ChainStep, maps: Maps) -> None:
        """The stream as torch has it, before its signs are taken; the signs that the chain makes of it."""
        block = step.name.rpartition(".")[0]
        if isinstance(step, SignStep) and block in seen:
            maps[step.source] = _stream(seen, block, step.name[-1]).permute(0, 2, 3, 1).numpy()
        if isinstance(step, BinaryStep):
            inputs[step.name] = maps[step.source]

    ran = run_chain(chain, images.numpy(), feed)
    for step in chain.binary:
        (x,), out = seen[step.name]
        signs = pixels_of(x.numpy(), 128) if step.steps else (x >= 0).permute(0, 2, 3, 1).numpy()
        ours = pixels_of(inputs[step.name], 128) if step.steps else inputs[step.name]
        assert (ours.reshape(signs.shape) == signs).all() or step.weights.window.kernel == step.size  # a flattened map
        scale = 1.0 if step.weights.scale is None else step.weights.scale[:, None, None]
        torchs = out.numpy() / scale * max(step.steps, 1)
        numbers = ran.counts[step.name].transpose(0, 3, 1, 2)
        assert (np.round(torchs)[:, :, : numbers.shape[2], : numbers.shape[3]] == numbers).all(), step.name
        assert np.abs(torchs - np.round(torchs)).max() < 0.01
    alone = run_chain(chain, images.numpy()).logits
    assert (alone.argmax(1) == logits.argmax(1)).all()
    assert np.abs(alone - logits).max() < 1e-3 * logits.std()


def _stream(seen: Any, block: str, number: str) -> Tensor:
    """What a block's signs are taken of; a bottleneck's first ones of its wide stream, the others of its narrow one."""
    given: Any = {"2": lambda: seen[f"{block}.pool"][0][0], "3": lambda: seen[block][1][0]}
    found = given.get(number, lambda: seen[block][0][0])()
    return found if isinstance(found, Tensor) else found[1]


def test_a_wrong_weight_is_noticed(tmp_path: Path) -> None:
    library = chain_library("resnete")
    text = library.files["weights.c"].decode()
    number = text.partition("block1_conv_weights[")[2].partition("{\n    ")[2].partition("u,")[0]
    changed = {**library.files, "weights.c": text.replace(f"    {number}u,", f"    {int(number) ^ 1}u,", 1).encode()}
    program = compile_library(CLibrary(changed, 0, library.arena), tmp_path, need("gcc"), "-std=c11")
    assert subprocess.run([program], capture_output=True, check=False).returncode == 1


def test_one_rounding_a_multiply_add() -> None:
    """Against fractions: the nearest float, the even one of two."""
    draw = np.random.default_rng(0)
    a, b = draw.normal(size=(2, 500)).astype(np.float32)
    c = (-a * b + draw.normal(size=500) * 2.0 ** draw.integers(-30, 3, 500)).astype(np.float32)
    for x, y, z, ours in zip(a, b, c, fma(a, b, c), strict=True):
        exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
        near = [np.nextafter(ours, np.float32(-np.inf)), ours, np.nextafter(ours, np.float32(np.inf))]
        gaps = [abs(Fraction(float(value)) - exact) for value in near]
        assert gaps[1] == min(gaps)
        assert gaps.count(gaps[1]) == 1 or int(ours.view(np.int32)) % 2 == 0


@pytest.mark.parametrize("key", CHAINS)
def test_the_arena_is_as_small_as_its_largest_moment(key: str) -> None:
    library = chain_library(key)
    assert library.arena.size == max(moment.total for moment in library.arena.moments)
    memory = json.loads(library.files["memory.json"])
    assert memory["arena_bytes"] == library.arena.size
    bits = sum(step.weights.words.nbytes for step in chain_of(key).binary)
    assert bits < 2.2 * count_spec(spec_of(key)).total.binary_params / 8 + 4096


def test_networks_that_no_chain_is_made_of() -> None:
    for name in ("real2binary", "bnext-t"):
        with pytest.raises(BadInputError, match="--to c: for"):
            require_chained(at_size(name, 64))


def test_the_refusal_names_the_fields_that_c_has_no_kernels_for() -> None:
    for name, change, said in (
        ("meliusnet22", "stem_pool=2", "stem_pool = 2$"),
        ("binarydensenet28", "padding=same", 'padding = "same"$'),
        ("meliusnet22", "pad_value=0", "pad_value = 0$"),
    ):
        with pytest.raises(BadInputError, match=f"not for networks with {said}"):
            require_chained(at_size(name, 64, change))


@pytest.mark.parametrize("key", ["reactivated", "vgg-small", "cnv"])
def test_a_packed_file_gives_the_same_library(key: str, tmp_path: Path) -> None:
    path = tmp_path / "network.packed.safetensors"
    assert write_packed(network_of(key), spec_of(key), path)
    assert make_library(load_packed(path), key, "net").files == chain_library(key).files


def test_a_manifest_counts_macs_of_all_bits_and_knows_where_no_layer_is_float() -> None:
    manifest = json.loads(chain_library("cnv").files["manifest.json"])
    total = count_spec(spec_of("cnv")).total
    assert manifest["counts"]["quantized_macs"] == total.quantized_macs > 0
    assert manifest["counts"]["binary_macs"] == total.binary_macs
    for key in ("cnv", "tfc"):
        floats = json.loads(chain_library(key).files["manifest.json"])["float_parts"]
        assert floats.startswith("a scale and a shift of each logit")
