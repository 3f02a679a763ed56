"""The ending of ``export -o`` chooses the format, or is refused; every answer says which format was written."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import run_here

from meliuscli.cli.export import _format
from meliuscli.errors import BadInputError

TFC = ["export", "tfc", "--input", "1x6x6", "--set", "hidden=[33]"]


@pytest.mark.parametrize("name", ["x.packed", "x.bin", "x", "x.c", "x.onnx.gz", "x.packed.safetensor", "c"])
def test_an_ending_that_no_format_has_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInputError, match="no format has this ending") as caught:
        run_here(*TFC, "-o", name)
    assert all(
        ending in str(caught.value.hint)
        for ending in ("--to", ".onnx (onnx)", ".packed.safetensors (packed)", "-c (c)", ".qonnx.onnx (qonnx)")
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("asked", "name", "to"),
    [
        (None, None, "onnx"),
        (None, "x.onnx", "onnx"),
        (None, "X.ONNX", "onnx"),
        (None, "x.safetensors", "packed"),
        (None, "x.packed.safetensors", "packed"),
        (None, "x.qonnx.onnx", "qonnx"),
        (None, "x-c", "c"),
        ("qonnx", "x.onnx", "qonnx"),
        ("c", "x", "c"),
        ("onnx", "x.bin", "onnx"),
        ("packed", "x-c", "packed"),
    ],
)
def test_the_format_is_that_of_the_ending(asked: str | None, name: str | None, to: str) -> None:
    assert _format(asked, None if name is None else Path(name)) == to


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("onnx", "x.safetensors"),
        ("packed", "x.onnx"),
        ("c", "x.onnx"),
        ("onnx", "x.qonnx.onnx"),
        ("packed", "x.qonnx.onnx"),
    ],
)
def test_an_ending_of_another_format_is_refused(asked: str, name: str) -> None:
    with pytest.raises(BadInputError, match=f"and --to is {asked}"):
        _format(asked, Path(name))


def test_every_answer_says_the_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnx")
    monkeypatch.chdir(tmp_path)
    says = {
        "x.onnx": "at 1x6x6 as ONNX, ",
        "x.packed.safetensors": "at 1x6x6 as a packed file, ",
        "x.qonnx.onnx": "at 1x6x6 as QONNX, ",
        "x-c": "at 1x6x6 in C; ",
    }
    for name, line in says.items():
        run_here(*TFC, "-o", name)
        assert line in capsys.readouterr().out
        run_here("export", name, "-o", f"again.{name}")
        again = capsys.readouterr().out
        assert (" in C; the same" if name == "x-c" else line) in again
        assert "the same" in again
