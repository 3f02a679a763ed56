"""A file that a command line names and that is not there is bad input (exit 2), in every command; a data set, a package, a
place to write are something missing (exit 3)."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import run_here

from meliuscli.cli.app import COMMANDS
from meliuscli.errors import BadInputError, MissingError

FILES = (
    *("count no.toml", "count no.onnx", "count no.packed.safetensors", "count no.py:make", "count no/net.toml"),
    *("count run:no", "compare meliusnet22 no.toml", "compare meliusnet22 no.onnx", "compare meliusnet22 run:no"),
    *("predict no.toml", "predict no.onnx", "predict no.onnx cat.png", "predict run:no cat.png"),
    *("show no.toml", "show no.onnx", "show space:no.toml", "show recipe:no.toml", "show run:no", "show study:no"),
    *("show check:no", "explain no.toml", "cite no.toml", "list runs --reports no"),
    *("search --budget 5e8 --space no.toml", "search --resume --study no", "check-proxy no.toml"),
    *("check-proxy --check no.toml", "check-proxy --long no.toml", "check-proxy --resume --name no"),
    *("train no.toml", "train no.py:make", "train meliusnet22 --recipe no.toml", "train --resume run:no"),
    *("train meliusnet22 --teacher run:no", "evaluate no.onnx", "evaluate no.packed.safetensors", "evaluate no"),
    *("evaluate run:no", "bench no.toml", "bench no.onnx", "bench no.packed.safetensors", "bench no.py:make"),
    *("export no.toml", "export no.onnx", "export no.py:make", "export --weights no.safetensors"),
    *("export --weights run:no", "export --weights 1234", "import no.params", "import no.h5", "import no.safetensors"),
    *("import no.onnx", "import here.params --arch no.toml", "report no.toml --html x.html"),
    *("report run:no --html x.html", "report check:no --html x.html", "report study:no"),
    *("report study:no --storage journal:no.log", "worker --study no", "worker --study no --storage journal:no.log"),
    "worker --study no --storage sqlite:///no.db",
)
NO_FILES = ("paper-tables",)
"""Commands that take no file."""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MELIUSCLI_DATA", str(tmp_path))


def test_every_command_that_takes_a_file_is_asked() -> None:
    assert {words.split()[0] for words in FILES} | set(NO_FILES) == set(COMMANDS)


@pytest.mark.parametrize("words", FILES)
def test_a_file_that_is_not_there_is_bad_input(words: str, tmp_path: Path) -> None:
    """It was exit 2 or 3, as the command and the file's suffix had it."""
    with pytest.raises(BadInputError) as caught:
        run_here(*words.split())
    assert caught.value.exit_code == 2
    assert "no" in caught.value.message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("train meliusnet22 --dataset cifar10", "no directory"),
        ("train meliusnet22 --dataset imagefolder --data no", "no directory no"),
        ("search --budget 5e8 --data no", "no directory"),
        ("search --budget 5e8 --transfer no", "--transfer no: neither a data set nor a directory"),
        ("count meliusnet22 --no-verify -o no/where.txt", "no such directory no"),
    ],
)
def test_a_data_set_or_a_place_that_is_not_there_is_something_missing(words: str, says: str) -> None:
    with pytest.raises(MissingError, match=says) as caught:
        run_here(*words.split())
    assert caught.value.exit_code == 3
