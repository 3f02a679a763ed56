"""C libraries with stem and head in int8: calibrated, scored, and bit-equal to their run in NumPy."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import run_here
from test_export_c import SANITIZED, STRICT, need, packed, run, small
from test_export_c_chain import chain_of, images_of, network_of, spec_of

from meliuscli.errors import BadInputError
from meliuscli.export.c.chain import StemStep
from meliuscli.export.c.compiled import compile_library
from meliuscli.export.c.exact import run_stem
from meliuscli.export.c.float_network import CNetwork, runner_for_c
from meliuscli.export.c.int8 import int8_stem
from meliuscli.export.c.int8_run import Int8Network
from meliuscli.export.c.vectors import noise
from meliuscli.export.c.writer import make_library

DENSE = ("groups", "one-stage")
KEYS = (*DENSE, "resnete", "reactivated", "vgg-small", "resnete-same+0", "reactivated-same", "resnet")


@cache
def runner_of(key: str) -> CNetwork:
    return packed(small(key)) if key in DENSE else runner_for_c(network_of(key), spec_of(key))


@cache
def int8_of(key: str) -> Int8Network:
    runner = runner_of(key)
    return Int8Network(runner, torch.cat([noise(runner.spec, seed) for seed in range(10, 20)]))


@pytest.mark.parametrize("key", KEYS)
def test_the_library_is_the_int8_network_to_the_last_bit(key: str, tmp_path: Path) -> None:
    runner = runner_of(key)
    library = make_library(runner, key, "net", None, int8_of(key), {"int8_top1": 0.5})
    program = compile_library(library, tmp_path, need("gcc"), "-std=c11", *STRICT, *SANITIZED)
    assert run(program).endswith("all 4 vectors are as expected\n")
    assert library.flash_bytes < make_library(runner, key, "net").flash_bytes
    assert library.arena.size == max(moment.total for moment in library.arena.moments)
    manifest = json.loads(library.files["manifest.json"])
    assert manifest["float_parts"].startswith("stem and head are int8")
    assert manifest["int8"] == {"int8_top1": 0.5}


def test_weights_are_within_half_a_step_and_a_stem_within_a_few() -> None:
    stem = chain_of("resnete").steps[0]
    assert isinstance(stem, StemStep)
    images = images_of("resnete", 8).numpy()
    int8 = int8_stem(stem, images)
    for ours, theirs in zip(int8.convs, stem.convs, strict=True):
        steps = np.abs(theirs.weight).max((1, 2, 3), keepdims=True) / 127
        assert ours.weight.dtype == np.int8
        assert np.abs(ours.weight * steps - theirs.weight).max() <= 0.51 * steps.max()
    assert int8.behind is not None
    gaps = np.abs(run_stem(stem, images) - run_stem(int8, images)) / np.abs(int8.behind[0])
    assert 0 < gaps.mean() < 1
    assert gaps.max() < 5


def test_batches_do_not_matter() -> None:
    images = images_of("resnete", 3)
    whole = int8_of("resnete")(images)
    assert torch.equal(torch.cat([int8_of("resnete")(image[None]) for image in images]), whole)


def test_a_network_without_float_ends_is_refused() -> None:
    with pytest.raises(BadInputError, match="stem and head of a finn-fc are binary"):
        Int8Network(runner_of("tfc"), images_of("tfc", 1))


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    narrow = [f"--set={change}" for change in ("stem=thumbnail", "num_blocks=[1]", "transition_channels=[]")]
    classes = ["--set=num_classes=10", "--set=growth_rate=8", "--set=stem_channels=8"]
    command = ["export", "meliusnet22", "--input", "1x8x8", *narrow, *classes]
    run_here(*command, "--to", "c", "--float-bits", "8", "-o", "out")
    out = capsys.readouterr().out
    assert "with stem and head in int8" in out
    assert "on 1,000 test images of fashion-mnist-mini" in out
    assert json.loads((tmp_path / "out/manifest.json").read_text())["int8"]["images"] == 1000
    wrong = {
        "32 bits, or 8": ("--to", "c", "--float-bits", "16"),
        "is for --to c": ("--to", "onnx", "--float-bits", "8"),
        "are for --float-bits 8": ("--to", "c", "--dataset", "cifar10"),
    }
    for says, options in wrong.items():
        with pytest.raises(BadInputError, match=says):
            run_here(*command, *options)
