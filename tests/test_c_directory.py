"""A directory of C used as a trained network: read back, written anew, compiled here, and nothing else of it executed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import run_here
from test_export_c import need, packed, small
from test_export_c_chain import chain_library, images_of, network_of, spec_of
from test_export_c_int8 import int8_of, runner_of

from meliuscli.arch.zoo import load_name
from meliuscli.cli.networks import load_network
from meliuscli.data.preprocessing import Preprocessing
from meliuscli.errors import BadInputError, FailedError, MissingError
from meliuscli.exchange.evaluation import classify
from meliuscli.exchange.headers import names_file, read_header
from meliuscli.exchange.opened import open_network
from meliuscli.export.c import shared
from meliuscli.export.c.manifest import c_directory, read_manifest
from meliuscli.export.c.reading import read_sources
from meliuscli.export.c.shared import open_c
from meliuscli.export.c.vectors import noise
from meliuscli.export.c.writer import make_library, write_library
from meliuscli.export.packed import load_packed
from meliuscli.packed.runner import pack

IMAGES = torch.randn(4, *small("one-stage").input_shape, generator=torch.Generator().manual_seed(0))
HOW = Preprocessing(9, 3, 9, 9, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), tuple(f"kind {label}" for label in range(19)))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``net-c`` of a small MeliusNet."""
    place = tmp_path_factory.mktemp("c") / "net-c"
    write_library(make_library(packed(small("one-stage")), "one-stage", "net", HOW), place)
    return place


def test_it_runs_as_the_packed_runner_to_the_last_bit(directory: Path) -> None:
    need("cc")
    network, runner = open_c(read_manifest(directory)), packed(small("one-stage"))
    images = torch.cat([noise(runner.spec, seed) for seed in range(8)])
    assert torch.equal(network(images), runner(images))
    with pytest.raises(BadInputError, match="images of shape"):
        network(images[:, :, 1:])


def test_a_chain_and_an_int8_network_run_too(tmp_path: Path) -> None:
    need("cc")
    write_library(chain_library("reactivated"), tmp_path / "chain")
    images, runner = images_of("reactivated", 8), pack(network_of("reactivated"), spec_of("reactivated"))
    assert (open_c(read_manifest(tmp_path / "chain"))(images).argmax(1) == runner(images).argmax(1)).all()
    int8 = int8_of("groups")
    write_library(make_library(runner_of("groups"), "groups", "net", None, int8, {"int8_top1": 0.5}), tmp_path / "int8")
    images = torch.cat([noise(runner_of("groups").spec, seed) for seed in range(4)])
    assert torch.equal(open_c(read_manifest(tmp_path / "int8"))(images), int8(images))


@pytest.mark.parametrize("key", ["resnete-grouped", "cnv", "tfc", "vgg-small"])
def test_sources_are_written_anew_to_the_last_byte(key: str, tmp_path: Path) -> None:
    library = chain_library(key)
    write_library(library, tmp_path / "c")
    texts = read_sources(read_manifest(tmp_path / "c")).texts
    assert all(library.files[name] == text.encode() for name, text in texts.items())
    assert {"net.c", "kernels.c", "weights.c"} < set(texts)


def changed(directory: Path, to: Path, name: str, change: Callable[[str], str]) -> Path:
    to.mkdir()
    for path in directory.rglob("*"):
        if path.is_file():
            (to / path.relative_to(directory)).parent.mkdir(exist_ok=True)
            (to / path.relative_to(directory)).write_bytes(path.read_bytes())
    (to / name).write_text(change((to / name).read_text()))
    return to


def digested(directory: Path, name: str) -> None:
    """Put the digest of a changed file into the manifest, too."""
    path, digest = directory / "manifest.json", hashlib.sha256((directory / name).read_bytes()).hexdigest()
    fields = json.loads(path.read_text())
    path.write_text(json.dumps({**fields, "files_sha256": {**fields["files_sha256"], name: digest}}))


def fields_changed(**values: object) -> Callable[[str], str]:
    return lambda text: json.dumps({**json.loads(text), **values})


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("kernels.c", lambda text: text + "\nint more(void) { return 1; }\n", "kernels.c: it is not what this version"),
        ("net.c", lambda text: text.replace("{", "{ system(NULL); ", 1), "net.c: it is not what this version"),
        (
            "net.h",
            lambda text: text.replace("_ARENA_BYTES ", "_ARENA_BYTES 1", 1),
            "net.h: it is not what this version",
        ),
        ("weights.c", lambda text: text.replace("u,", "u + 1u,", 1), "weights.c: it has no"),
        ("weights.c", lambda text: text.replace("u,", "9u,", 1), "weights.c: "),
        ("weights.c", lambda text: text[: len(text) // 2], "weights.c: it has no"),
        ("weights.c", lambda text: text + "\nint more;\n", "weights.c: it is not what this version"),
        ("weights.c", lambda text: text[:1000], "weights.c: 1,000 characters for about"),
        ("kernels.h", lambda text: text + " " * 2**21, "kernels.h: no file of at most"),
        ("manifest.json", fields_changed(format="mine"), "no manifest of a C library"),
        ("manifest.json", fields_changed(archid="mine"), "its network is"),
        ("manifest.json", fields_changed(files_sha256={"../net.h": ""}), "does not name the library's header"),
        (
            "manifest.json",
            fields_changed(files_sha256={"net.h": "", "../../x": ""}),
            "files are not those of a library",
        ),
        ("manifest.json", fields_changed(network="*/ int x; /*"), "network is not what net.h is called"),
        ("manifest.json", fields_changed(weights_sha256="0"), "not those that manifest.json has the digest of"),
        ("manifest.json", lambda text: text[:-20], "no manifest of a C library"),
        ("manifest.json", lambda _: "[" * 10000, "no manifest of a C library"),
    ],
)
def test_what_was_changed_is_refused_before_anything_is_compiled(
    name: str, change: Callable[[str], str], says: str, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even with the right digests."""
    monkeypatch.setattr(shared, "compiler", lambda: pytest.fail("it asks for a compiler"))
    place = changed(directory, tmp_path / "net-c", name, change)
    if name != "manifest.json":
        with pytest.raises(
            BadInputError, match=r"not the file that manifest\.json has the digest of|no file of at most"
        ):
            read_header(place)
        digested(place, name)
    with pytest.raises(BadInputError, match=says):
        open_network(str(place), tmp_path)


def test_an_order_of_channels_that_leads_outside_of_a_map_is_refused(tmp_path: Path) -> None:
    """A kernel reads where that table says, whatever the digests are."""
    library = make_library(packed(small("groups")), "groups", "net")
    write_library(library, tmp_path / "c")
    table = library.files["weights.c"].decode().partition("_order[")[2].partition("};")[0]
    evil = table.replace("    0u,", "    65000u,", 1)
    assert evil != table
    place = changed(tmp_path / "c", tmp_path / "evil", "weights.c", lambda text: text.replace(table, evil))
    digested(place, "weights.c")
    with pytest.raises(BadInputError, match="another order of channels"):
        read_sources(read_manifest(place))


def test_without_a_compiler_it_says_how_to_get_one(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "compiler", lambda: None)
    with pytest.raises(MissingError, match="needs a C compiler") as caught:
        open_c(read_manifest(directory))
    assert "apt-get install gcc" in str(caught.value.hint)


def test_it_is_named_by_itself_or_its_manifest_and_a_known_name_stays_a_network(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert c_directory(directory) == c_directory(directory / "manifest.json") == directory
    assert not names_file(str(tmp_path))
    assert load_network(str(directory)).spec == small("one-stage")
    assert read_header(directory).preprocessing == HOW
    directory.with_name("meliusnet22").symlink_to(directory)
    monkeypatch.chdir(directory.parent)
    assert load_network("meliusnet22").spec == load_name("meliusnet22")
    assert load_network("./meliusnet22").spec == small("one-stage")


def test_commands_take_it(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    need("cc")
    monkeypatch.chdir(tmp_path)
    run_here("show", str(directory))
    assert "kind 18" in capsys.readouterr().out
    run_here("export", str(directory), "--to", "c", "-o", "again")
    names = [path.relative_to(directory) for path in directory.rglob("*") if path.is_file()]
    assert all((tmp_path / "again" / name).read_bytes() == (directory / name).read_bytes() for name in names)
    run_here("export", str(directory), "--to", "packed", "-o", "net.packed.safetensors")
    assert torch.equal(load_packed(tmp_path / "net.packed.safetensors")(IMAGES), packed(small("one-stage"))(IMAGES))
    capsys.readouterr()
    run_here("bench", "again/manifest.json", "--runs", "2", "--format", "json")
    (measured,) = json.loads(capsys.readouterr().out)["networks"]
    assert [one["name"] for one in measured["runs"]] == ["C"]
    assert measured["archid"] == small("one-stage").archid
    with pytest.raises(FailedError, match="more than --max-ms"):
        run_here("bench", "again", "--runs", "1", "--max-ms", "0.0000001")
    with pytest.raises(BadInputError, match="--threads 2"):
        run_here("bench", "again", "--threads", "2")


def test_images_are_classified_by_name(directory: Path, tmp_path: Path) -> None:
    need("cc")
    image = pytest.importorskip("PIL.Image")
    image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)).save(tmp_path / "image.png")
    (answer,) = classify(open_network(str(directory), tmp_path), [tmp_path / "image.png"])
    assert len(answer.classes) == 5
    assert all(name.startswith("kind ") for name, _ in answer.classes)
