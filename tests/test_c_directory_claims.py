"""A directory of C of which something was edited: all commands refuse it by what was edited."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import run_here
from test_c_directory import HOW, digested, directory
from test_export_c import need

from meliuscli.errors import BadInputError
from meliuscli.exchange.headers import read_header

__all__ = ["directory"]  # the fixture

Edit = Callable[[dict[str, Any]], None]
COMMANDS = {
    "count": ["net-c"],
    "show": ["net-c"],
    "bench": ["net-c", "--runs", "1"],
    "predict": ["net-c", "image.png"],
    "evaluate": ["net-c"],
    "export": ["net-c", "--to", "c", "-o", "again-c"],
}


def how_edited(**values: object) -> Edit:
    return lambda fields: fields["preprocessing"].update(values)


def edit(place: Path, change: Edit) -> None:
    path = place / "manifest.json"
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))


NAMES = HOW.class_names
EDITS: dict[str, tuple[Edit, str]] = {
    "names swapped": (how_edited(class_names=[NAMES[1], NAMES[0], *NAMES[2:]]), "preprocessing is not what test/vec"),
    "a name less": (how_edited(class_names=NAMES[:-1]), "18 class names for 19 classes"),
    "a name more": (how_edited(class_names=[*NAMES, "x"]), "20 class names for 19 classes"),
    "no names": (how_edited(class_names=[]), "preprocessing is not what test/vectors.h says"),
    "one text": (how_edited(class_names="a" * 19), "no list of texts"),
    "names of numbers": (how_edited(class_names=list(range(19))), "no list of texts"),
    "mean": (how_edited(mean=[0.5, 0.4, 0.31]), "preprocessing is not what test/vectors.h says"),
    "mean of text": (how_edited(mean=["0.5", "0.4", "0.3"]), "no list of numbers"),
    "a name that is no text": (
        how_edited(class_names=["\ud800", *NAMES[1:]]),
        "preprocessing is not what test/vectors",
    ),
    "mean beyond floats": (how_edited(mean=[10**400, 0.4, 0.3]), "no number to normalise by"),
    "deviation": (how_edited(std=[0.2, 0.3, 0.5]), "preprocessing is not what test/vectors.h says"),
    "deviation of 0": (how_edited(std=[0.2, 0.3, 0]), "no number to normalise by"),
    "crop": (how_edited(crop=8), "preprocessing is not what test/vectors.h says"),
    "resize": (how_edited(resize=10), "preprocessing is not what test/vectors.h says"),
    "input size": (how_edited(input_size=8), "preprocessing is for images of another shape"),
    "no preprocessing": (lambda fields: fields.update(preprocessing=None), "preprocessing is not what test/vectors.h"),
    "input": (lambda fields: fields["input"].update(shape=[3, 10, 10]), "input is not that of its network"),
    "order": (lambda fields: fields["input"].update(order="rows"), "input is not that of its network"),
    "counts": (lambda fields: fields["counts"].update(params=1), "counts is not that of its network"),
    "no counts": (lambda fields: fields.pop("counts"), "not those of a manifest: counts"),
    "a field more": (lambda fields: fields.update(note="x"), "not those of a manifest: note"),
    "floats": (lambda fields: fields.update(float_parts="none"), "float_parts is not that of its network"),
    "int8": (lambda fields: fields.update(int8={"int8_top1": 1}), "float_parts is not that of its network"),
    "title": (lambda fields: fields.update(network="other"), "network is not what net.h is called"),
    "version": (lambda fields: fields.update(meliuscli=1), "meliuscli is no text"),
    "spec": (lambda fields: fields.update(spec=5), "spec is no table"),
}


@pytest.fixture
def place(directory: Path, tmp_path: Path) -> Path:
    return shutil.copytree(directory, tmp_path / "net-c")


@pytest.mark.parametrize("what", EDITS)
def test_an_edited_manifest_is_refused_by_the_field(what: str, place: Path) -> None:
    change, says = EDITS[what]
    edit(place, change)
    with pytest.raises(BadInputError, match=says):
        read_header(place)


def test_every_file_of_the_manifest_is_held_against_its_digest(place: Path) -> None:
    names = json.loads((place / "manifest.json").read_text())["files_sha256"]
    assert {*names, "manifest.json"} == {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()}
    for name in names:
        content = (place / name).read_bytes()
        (place / name).write_bytes(content + b"\n")
        with pytest.raises(BadInputError, match=f"{name}: it is not the file that manifest.json has the digest of"):
            read_header(place)
        (place / name).unlink()
        with pytest.raises(BadInputError, match=f"{name}: no such file"):
            read_header(place)
        (place / name).write_bytes(content)
    read_header(place)


def test_vectors_with_other_names_are_refused_with_their_digest_too(place: Path) -> None:
    path = place / "test/vectors.h"
    path.write_text(path.read_text().replace("kind 3", "kind 4"))
    digested(place, "test/vectors.h")
    with pytest.raises(BadInputError, match=r"preprocessing is not what test/vectors\.h says"):
        read_header(place)


@pytest.mark.parametrize("command", COMMANDS)
def test_all_commands_refuse_what_was_edited(command: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place.parent)
    Path("image.png").write_bytes(b"")
    edit(place, EDITS["names swapped"][0])
    with pytest.raises(BadInputError, match=r"preprocessing is not what test/vectors\.h says"):
        run_here(command, *COMMANDS[command])


def test_files_of_the_users_own_are_neither_read_nor_copied(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    need("cc")
    monkeypatch.chdir(place.parent)
    (place / "extra.c").write_text("#error it is compiled\n")
    (place / "build").mkdir()
    run_here("bench", "net-c", "--runs", "1")
    run_here("export", *COMMANDS["export"])
    assert "the same files" in capsys.readouterr().out
    assert not (place.parent / "again-c/extra.c").exists()
    assert not (place.parent / "again-c/build").exists()
