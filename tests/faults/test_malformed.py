"""Malformed inputs that the campaign of faults found to end in a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest
from malformed import MALFORMED
from mutate import tried
from right import c_files, file_seed, journal_seed, write_onnx


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


DEEP = {
    "lists of JSON": b"[" * 100_000,
    "objects of JSON": b'{"a":' * 100_000,
    "a number of JSON": b'{"x": ' + b"9" * 5000 + b"}",
    "lists of TOML": b"x = " + b"[" * 100_000,
    "tables of TOML": b"[" + b"x." * 3000 + b"x]",
    "a number of TOML": b"x = " + b"9" * 5000,
    "a number for --set": b"meliusnet22\n--set\ngroups=" + b"9" * 5000,
    "lists for --set": b"meliusnet22\n--set\ngroups=" + b"[" * 50_000,
}
TEXTS = ("spec", "space", "recipe", "study", "run record", "configuration", "command line", "C manifest")


@pytest.mark.parametrize("deep", DEEP)
def test_what_is_deeper_or_longer_than_python_reads_is_refused(deep: str, tmp_path: Path) -> None:
    contents = dict.fromkeys(TEXTS, DEEP[deep])
    contents["journal"] = DEEP[deep] + b"\n" + journal_seed()  # at whose end it would be a torn line
    outcomes = {kind: tried(kind, content, tmp_path / "wrong") for kind, content in contents.items()}
    assert outcomes == dict.fromkeys(contents, ("refused with 2", None))


@pytest.mark.parametrize("wrong", ["9" * 400, "[" * 100_000])
def test_a_table_of_latencies_with_what_json_alone_allows_is_refused(wrong: str, tmp_path: Path) -> None:
    content = MALFORMED["table of latencies"][0]() + f'["stem 64", {wrong}]\n'.encode()
    assert tried("table of latencies", content, tmp_path / "wrong") == ("refused with 2", None)


@pytest.mark.parametrize("kind", ["configuration", "command line", "spec", "recipe"])
def test_text_that_is_none_is_refused(kind: str, tmp_path: Path) -> None:
    assert tried(kind, b"\xff\x00=[", tmp_path / "wrong") == ("refused with 2", None)
