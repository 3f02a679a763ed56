"""Shared pieces: specs at random, the command line in a subprocess, a tiny search space."""

from __future__ import annotations

import os

# Tests run two at a time on two cores: torch's own threads would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import gc
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from forked import Forks
from hypothesis import settings
from hypothesis import strategies as st
from json_schemas import hold_answer

from meliuscli.arch.families.abcnet import ABCNetSpec
from meliuscli.arch.families.alexnet import BinaryAlexNetSpec, DoReFaAlexNetSpec, XnorAlexNetSpec
from meliuscli.arch.families.bmxnet import BMXNetResNetSpec
from meliuscli.arch.families.bnext import BNextSpec
from meliuscli.arch.families.dense import BinaryDenseNetSpec, MeliusNetSpec
from meliuscli.arch.families.mobilenet import MobileNetV1Spec, MobileNetV2Spec
from meliuscli.arch.families.pokebnn import PokeBNNSpec
from meliuscli.arch.families.quicknet import QuickNetSpec
from meliuscli.arch.families.reactnet import ReActNetSpec
from meliuscli.arch.families.resnet import BiRealNetSpec, RealToBinarySpec, ResNetESpec, ResNetSpec, XnorResNetSpec
from meliuscli.arch.spec import ArchSpec
from meliuscli.arch.zoo import load_arch
from meliuscli.data.catalog import load_dataset
from meliuscli.errors import SpecError

if threading.current_thread() is threading.main_thread():
    # Under nohup, and behind a & in a script, SIGINT is ignored, and so it would be by all that tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("default", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("default")

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Processes that have loaded torch already."""
    forks = Forks()
    yield forks
    forks.close()


@pytest.fixture
def cli(tmp_path: Path, forks: Forks) -> Cli:
    """Run ``meliuscli ARGS`` as a user would, in an empty directory. JSON is held against its published schema."""

    def run(*args: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "NO_COLOR": "1", **env}
        if not any(name.startswith("PYTHON") for name in env):
            done = forks.run(args, cwd or tmp_path, environment)
            if done.returncode in (0, 1) and done.stdout:
                hold_answer(args, done.stdout)
            return done
        command = [sys.executable, "-m", "meliuscli", *args]
        return subprocess.run(
            command, cwd=cwd or tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
        )

    return run


def run_here(*args: str) -> None:
    """``meliuscli ARGS`` in this process and directory; errors are raised."""
    from meliuscli.cli.app import make_app

    gc.enable()  # what the import turns off
    make_app(args)(args, standalone_mode=False)


def check_golden(name: str, text: str) -> None:
    """Compare with a file; ``MELIUSCLI_UPDATE_GOLDEN=1`` writes it."""
    path = Path(__file__).parent / "golden" / name
    if os.environ.get("MELIUSCLI_UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


def write_small_idx(directory: Path) -> None:
    """1000 images to train on and 300 to test on, in MNIST's format."""
    mini = load_dataset("fashion-mnist-mini")
    for prefix, split, count in (("train", mini.train, 1000), ("t10k", mini.test, 300)):
        for name, values in (("images-idx3", split.images[:count, 0]), ("labels-idx1", split.labels[:count])):
            header = bytes([0, 0, 8, values.dim()]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
            (directory / f"{prefix}-{name}-ubyte").write_bytes(header + values.to(torch.uint8).numpy().tobytes())


@st.composite
def dense_specs(draw: st.DrawFn, max_size: int = 48) -> ArchSpec:
    """Small valid MeliusNets and BinaryDenseNets of one to three stages."""
    family = draw(st.sampled_from([MeliusNetSpec, BinaryDenseNetSpec]))
    stages = draw(st.integers(1, 3))
    groups = draw(st.sampled_from([1, 1, 2, 4]))
    width = st.integers(1, 4).map(lambda k: 4 * k)

    def each(strategy: st.SearchStrategy[int], count: int) -> list[int]:
        return draw(st.lists(strategy, min_size=count, max_size=count))

    fields = {
        "num_blocks": each(st.integers(1, 3), stages),
        "growth_rate": each(width if groups > 1 else st.integers(1, 9), stages),
        "stem": draw(st.sampled_from(["grouped", "imagenet", "thumbnail"])),
        "stem_channels": draw(st.sampled_from([16, 32])),
        "transition_channels": each(width, stages - 1),
        "groups": groups,
        "dilation": draw(st.sampled_from([[1] * stages, [1, 1, 2][:stages], [1, 2, 4][:stages]])),
        "num_classes": draw(st.integers(1, 12)),
        "input_size": draw(st.integers(16, max_size)),
        "input_channels": draw(st.sampled_from([1, 3])),
    }
    try:
        return family(**fields)
    except SpecError:
        # Only the map can have become too small: everything else above divides.
        return family(**{**fields, "input_size": max_size})


@st.composite
def mobilenet_specs(draw: st.DrawFn) -> ArchSpec:
    """Small MobileNets of one to four blocks."""
    blocks = draw(st.integers(1, 4))
    return MobileNetV1Spec(
        stem_channels=draw(st.integers(1, 12)),
        channels=draw(st.lists(st.integers(1, 20), min_size=blocks, max_size=blocks)),
        strides=draw(st.lists(st.integers(1, 2), min_size=blocks, max_size=blocks)),
        num_classes=draw(st.integers(1, 12)),
        input_size=draw(st.integers(1, 40)),
        input_channels=draw(st.sampled_from([1, 3])),
    )


RESIDUAL = (ResNetSpec, XnorResNetSpec, ResNetESpec, BiRealNetSpec, RealToBinarySpec, ABCNetSpec, BMXNetResNetSpec)


@st.composite
def residual_specs(draw: st.DrawFn) -> ArchSpec:
    """Small ResNets, float and binary, of one to three stages."""
    family = draw(st.sampled_from(RESIDUAL))
    stages = draw(st.integers(1, 3))
    options = {
        ResNetSpec: {"block": ["basic", "bottleneck"]},
        BiRealNetSpec: {"block": ["basic", "bottleneck"], "reactivation": [False, True]},
        XnorResNetSpec: {"scaling": [False, True], "shortcut": ["float", "binary"]},
        ResNetESpec: {"input_norm": [False, True]},
        BMXNetResNetSpec: {"pad_value": [-1, 0, 1]},
        ABCNetSpec: {"weight_bases": [1, 3], "activation_bases": [1, 2]},
    }.get(family, {})
    return family(
        num_blocks=draw(st.lists(st.integers(1, 3), min_size=stages, max_size=stages)),
        channels=draw(st.lists(st.sampled_from([8, 16, 24]), min_size=stages, max_size=stages)),
        stem=draw(st.sampled_from(["grouped", "imagenet", "thumbnail"])),
        stem_channels=16,
        num_classes=draw(st.integers(1, 12)),
        input_size=draw(st.integers(8, 48)),
        input_channels=draw(st.sampled_from([1, 3])),
        **{key: draw(st.sampled_from(values)) for key, values in options.items()},
    )


@st.composite
def other_specs(draw: st.DrawFn) -> ArchSpec:
    """Small ReActNets, QuickNets, BNexts, PokeBNNs, MobileNets of the second version and AlexNets."""
    common = {"num_classes": draw(st.integers(1, 12)), "input_channels": draw(st.sampled_from([1, 3]))}
    size = draw(st.integers(33, 60))
    kind = draw(st.sampled_from(["reactnet", "quicknet", "bnext", "pokebnn", "mobilenet", "alexnet"]))
    widths = [8]
    for _ in range(draw(st.integers(0, 3))):
        widths.append(widths[-1] * draw(st.sampled_from([1, 2])))
    blocks = draw(st.lists(st.integers(1, 2), min_size=len(widths), max_size=len(widths)))
    if kind == "reactnet":
        widening = draw(st.sampled_from([("binary", 1), ("float", 1), ("float", 4)]))
        strides = draw(st.lists(st.integers(1, 2), min_size=len(widths), max_size=len(widths)))
        more = {"widening": widening[0], "widening_groups": widening[1], "strides": strides}
        return ReActNetSpec(stem_channels=8, channels=widths, input_size=size, **more, **common)
    if kind == "quicknet":
        return QuickNetSpec(num_blocks=blocks[:3], channels=widths[:3], input_size=size + 20, **common)
    if kind == "bnext":
        return BNextSpec(stem_channels=8, channels=widths, input_size=size, **common)
    if kind == "pokebnn":
        return PokeBNNSpec(
            num_blocks=blocks, channels=widths, stem_groups=4, stem_channels=8, input_size=size, **common
        )
    if kind == "mobilenet":
        strides = draw(st.lists(st.integers(1, 2), min_size=len(widths), max_size=len(widths)))
        inner = {"expansion": draw(st.sampled_from([[1] * len(widths), [6] * len(widths)])), "strides": strides}
        more = {"num_blocks": blocks, "channels": widths, "stem_channels": 8, "head_channels": 16}
        return MobileNetV2Spec(input_size=size, **inner, **more, **common)
    family = draw(st.sampled_from([BinaryAlexNetSpec, XnorAlexNetSpec, DoReFaAlexNetSpec]))
    bits = {"activation_bits": draw(st.integers(1, 4))} if family is DoReFaAlexNetSpec else {}
    size, stem = (size, "thumbnail") if draw(st.booleans()) else (size + 60, "alexnet")
    return family(channels=[4, 6, 8, 8, 6], hidden=12, stem=stem, input_size=size, **bits, **common)


def specs() -> st.SearchStrategy[ArchSpec]:
    """Small networks of every family."""
    return st.one_of(dense_specs(), mobilenet_specs(), residual_specs(), other_specs())


def at_size(name: str, size: int, *overrides: str) -> ArchSpec:
    """A named network for images of this size; AlexNets take the thumbnail stem where they need it."""
    small = ["stem=thumbnail"] if size < 50 and "alexnet" in name else []
    return load_arch(name, [f"input_size={size}", *small, *overrides]).spec


TINY_SPACE = """
family = "meliusnet"
known = ["meliusnet22"]

[target]
input_size = 64
num_classes = 10

[parameters]
num_blocks = [{ low = 1, high = 2 }, { low = 1, high = 2 }]
growth_rate = { choices = [32, 64] }
transition_channels = [{ low = 32, high = 96, step = 32 }]
groups = { choices = [1, 2] }
stem_channels = { low = 32, high = 64, step = 32 }

[proxy]
dataset = "fashion-mnist-mini"
input_size = 8
width_divisor = 16

[proxy.recipe]
epochs = 0.05
batch_size = 50
learning_rate = 0.05
betas = [0.9, 0.99]
shift = 0

[final.recipe]
epochs = 0.1
batch_size = 50
learning_rate = 0.05
betas = [0.9, 0.99]
shift = 0
"""


@pytest.fixture
def tiny_space(tmp_path: Path) -> Path:
    """A space of two-stage networks whose proxies train in a second."""
    path = tmp_path / "tiny.toml"
    path.write_text(TINY_SPACE)
    return path
