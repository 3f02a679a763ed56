"""The compiler keeps quiet, whoever compiles: `train --compile on`, `auto`, and what `bench` times."""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import meliuscli
from meliuscli.nn.compiled import PARTS, compile_quietly


class Heard(logging.Handler):
    """What the compiler warned of and logged."""

    def __init__(self, warned: list[warnings.WarningMessage]) -> None:
        super().__init__(logging.WARNING)
        self.warned, self.logged = warned, list[str]()

    def emit(self, record: logging.LogRecord) -> None:
        self.logged.append(record.getMessage())


@pytest.fixture
def heard() -> Iterator[Heard]:
    """Everything is heard, as in a process that has not compiled anything."""
    loggers = [logging.getLogger(part) for part in PARTS]
    before = [logger.level for logger in loggers]
    torch._dynamo.reset()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        handler = Heard(warned)
        for logger in loggers:
            logger.setLevel(logging.WARNING)
            logger.addHandler(handler)
        yield handler
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.removeHandler(handler)
    torch._dynamo.reset()


@functools.lru_cache
def three() -> int:
    return 3


class Scaled(nn.Module):
    """What Dynamo warns of: it calls what ``lru_cache`` wraps, and is compiled anew for every number."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def forward(self, x: Tensor) -> Tensor:
        return x * three() * self.number


def compile_many(compile_with: Callable[..., Any]) -> None:
    for number in range(10):  # more than Dynamo's `recompile_limit`, 8
        assert compile_with(Scaled(number), backend="eager")(torch.ones(3))[0] == 3 * number


def test_torch_itself_warns_and_logs(heard: Heard) -> None:
    """The fault that people saw: `train --arch meliusnet22` printed these two."""
    compile_many(torch.compile)
    assert any("lru_cache" in str(warning.message) for warning in heard.warned)
    assert any("recompile_limit" in line for line in heard.logged)


def test_what_is_compiled_for_the_user_is_compiled_quietly(heard: Heard) -> None:
    compile_many(compile_quietly)
    assert (heard.warned, heard.logged) == ([], [])


def test_nobody_compiles_otherwise() -> None:
    """So `--compile on` is as quiet as `auto`."""
    sources = Path(str(meliuscli.__file__)).parent.rglob("*.py")
    calls = [path.name for path in sources if "= torch.compile(" in path.read_text(encoding="utf-8")]
    assert calls == ["compiled.py"]
