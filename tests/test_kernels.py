"""The compiled kernels: made at first use, kept, made again where the kept file is broken, done without where need be."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from meliuscli.nn import kernels

needs_compiler = pytest.mark.skipif(kernels.kernels() is None, reason="no C compiler here")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MELIUSCLI_CACHE", str(tmp_path))
    return tmp_path / "kernels"


def doubled(made: kernels.Kernels | None) -> list[float]:
    """What ``finish`` makes of base + 1 * sums + 0 * x + 0 for base = sums = 0, 1, ..., 5."""
    assert made is not None
    x, to = torch.arange(6.0).view(3, 2), torch.empty(3, 2)
    zeros, ones = torch.zeros(2), torch.ones(2)
    made("finish", torch.float32, to, x, 2, x, 2, x, 2, ones, zeros, zeros, 3, 2)
    return to.view(-1).tolist()


@needs_compiler
def test_a_library_is_kept_and_a_broken_one_made_again(folder: Path) -> None:
    assert doubled(kernels.kernels.__wrapped__()) == [0, 2, 4, 6, 8, 10]
    (library,) = folder.iterdir()
    library.unlink()  # not written over: this process has it mapped
    library.write_bytes(b"\x7fELF cut short")
    assert doubled(kernels.kernels.__wrapped__()) == [0, 2, 4, 6, 8, 10]
    assert [path.name for path in folder.iterdir()] == [library.name]


def test_there_are_none_without_a_compiler_that_works(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert kernels.kernels.__wrapped__() is None
    monkeypatch.setattr(shutil, "which", lambda _: "/bin/false")
    assert kernels.kernels.__wrapped__() is None
    assert not folder.exists()


@needs_compiler
def test_without_a_place_to_keep_them_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("MELIUSCLI_CACHE", str(tmp_path / "file" / "inside"))
    assert kernels.kernels.__wrapped__() is None
