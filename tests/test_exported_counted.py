"""What was exported is counted as what it is: memory of its own bits, images of its own size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import run_here
from test_export_c import packed, small
from test_export_c_int8 import int8_of, runner_of

from meliuscli.errors import BadInputError, FailedError
from meliuscli.export.c.writer import make_library, write_library


@pytest.fixture(scope="module")
def int8_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("int8") / "net-c"
    library = make_library(runner_of("groups"), "groups", "net", None, int8_of("groups"), {"int8_top1": 0.5})
    write_library(library, place)
    return place


def test_memory_of_a_directory_of_c_is_that_of_its_own_bits(
    int8_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    says = json.loads((int8_directory / "memory.json").read_text())
    run_here("count", str(int8_directory), "--format", "json")
    counted = json.loads(capsys.readouterr().out)["memory"]
    assert (counted["ram_bytes"], counted["flash_bytes"]) == (says["arena_bytes"], says["constant_bytes"])
    run_here("count", str(int8_directory), "--max-flash", str(says["constant_bytes"]))
    assert "(both with stem and head in int8)" in " ".join(capsys.readouterr().out.split())
    write_library(make_library(packed(small("groups")), "groups", "net"), tmp_path / "float")
    with pytest.raises(FailedError, match="bytes of flash are more"):
        run_here("count", str(tmp_path / "float"), "--float-bits", "8", "--max-flash", str(says["constant_bytes"]))


@pytest.mark.parametrize("command", ["count", "show", "compare"])
def test_an_exported_file_stays_at_its_size(command: str, int8_directory: Path) -> None:
    with pytest.raises(BadInputError, match="is for images of its own size") as caught:
        run_here(command, str(int8_directory), "--input", "64")
    assert caught.value.hint == "leave --input out"


def test_memory_says_its_bits_where_the_size_is_of_others(capsys: pytest.CaptureFixture[str]) -> None:
    run_here("count", "meliusnet22", "--float-bits", "8", "--set", "padding=same", "--no-verify")
    assert "(both with floats of 32 bits)" in " ".join(capsys.readouterr().out.split())
    run_here("count", "meliusnet22", "--float-bits", "8", "--no-verify")
    assert "(both with" not in capsys.readouterr().out
