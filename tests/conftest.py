"""Shared pieces: specs at random, the command line in a subprocess, a tiny search space."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st

from meliuscli.arch.families.dense import BinaryDenseNetSpec, MeliusNetSpec
from meliuscli.arch.families.mobilenet import MobileNetV1Spec
from meliuscli.arch.spec import ArchSpec
from meliuscli.errors import SpecError

settings.register_profile("default", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("default")

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Run ``meliuscli ARGS`` as a user would, in an empty directory."""

    def run(*args: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "NO_COLOR": "1", **env}
        command = [sys.executable, "-m", "meliuscli", *args]
        return subprocess.run(
            command, cwd=cwd or tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
        )

    return run


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
