"""Malformed inputs that the campaign of faults found to end in a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest
from malformed import MALFORMED
from mutate import tried
from right import c_files, file_seed, write_onnx


def test_an_onnx_file_whose_text_is_none_is_refused(tmp_path: Path) -> None:
    content = file_seed("net.onnx", write_onnx)()
    assert tried("ONNX", content, tmp_path / "right") == ("read", None)
    wrong = content.replace(b"num_blocks", b"num\xff\xfeblock")
    assert len(wrong) == len(content)
    assert wrong != content
    assert tried("ONNX", wrong, tmp_path / "wrong") == ("refused with 2", None)


@pytest.mark.parametrize("kind", MALFORMED)
def test_what_is_right_is_read(kind: str, tmp_path: Path) -> None:
    """Or the campaign would spoil what was refused before."""
    if "checksum" not in kind:  # whose checksum is made right where the file is spoilt
        assert tried(kind, MALFORMED[kind][0](), tmp_path / "right") == ("read", None)


@pytest.mark.parametrize("name", ["manifest.json", "weights.c", "kernels.c"])
def test_a_directory_of_c_is_read_as_it_is_or_not_at_all(name: str, tmp_path: Path) -> None:
    pytest.importorskip("llvmlite")
    kind = {"manifest.json": "C manifest", "weights.c": "C constants", "kernels.c": "C source"}[name]
    content = c_files()[name]
    assert tried(kind, content, tmp_path / "right") == ("read", None)
    for number, wrong in enumerate((b"", b"{", content[:-9], content.replace(b"1", b"2", 1), b"\xff" + content)):
        assert tried(kind, wrong, tmp_path / str(number)) == ("refused with 2", None)


@pytest.mark.parametrize("kind", ["configuration", "command line", "spec", "recipe"])
def test_text_that_is_none_is_refused(kind: str, tmp_path: Path) -> None:
    assert tried(kind, b"\xff\x00=[", tmp_path / "wrong") == ("refused with 2", None)
