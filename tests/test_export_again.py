"""Every exported file written again in every format: the table of docs/how-to/export.md, by trying each pair."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from conftest import run_here
from pages import ROOT

from meliuscli.errors import BadInputError
from meliuscli.exchange.again import network_again
from meliuscli.exchange.headers import read_header
from meliuscli.export.c.int8_run import Int8Network
from meliuscli.export.c.manifest import read_manifest
from meliuscli.export.c.vectors import noise
from meliuscli.export.c.writer import make_library, write_library
from meliuscli.export.packed import load_packed

pytest.importorskip("llvmlite")
pytest.importorskip("onnxscript")

NETWORKS = {
    "meliusnet": (
        "meliusnet22",
        "1x8x8",
        "stem=thumbnail",
        "num_blocks=[1]",
        "transition_channels=[]",
        "growth_rate=8",
        "stem_channels=8",
    ),
    "birealnet": (
        "birealnet18",
        "32",
        "padding=same",
        "reactivation=true",
        "num_blocks=[1,1]",
        "channels=[16,20]",
        "stem_channels=16",
    ),
    "tfc": ("tfc", "1x6x6", "hidden=[33]"),
}
FILES = {"packed": "net.packed.safetensors", "onnx": "net.onnx", "c": "net-c", "qonnx": "net.qonnx.onnx"}
ROWS = {
    "packed": "a packed file",
    "onnx": "an ONNX file",
    "c": "C",
    "int8": "C with `--float-bits 8`",
    "qonnx": "a QONNX file",
}
"""Sources as the page names them."""


def export(*words: str) -> None:
    run_here("export", *words)


SLOW = [pytest.param(key, marks=pytest.mark.slow) for key in ("meliusnet", "birealnet")]


@pytest.fixture(scope="module", params=["tfc", *SLOW])
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """One network in all formats, and in C with its ends in int8 where it has such."""
    key, place = request.param, tmp_path_factory.mktemp("files")
    name, size, *changes = NETWORKS[key]
    network = [name, "--input", size, *(f"--set={change}" for change in (*changes, "num_classes=10"))]
    for to, file in FILES.items():
        export(*network, "--to", to, "-o", str(place / file))
    if key == "meliusnet":
        export(*network, "--to", "c", "--float-bits", "8", "-o", str(place / "net8-c"))
    elif key == "birealnet":  # the embedded images have one channel
        how = Int8Network(load_packed(place / FILES["packed"]), noise(load_packed(place / FILES["packed"]).spec, 0))
        write_library(make_library(how.runner, "net8", "net8", None, how, {"int8_top1": 0.1}), place / "net8-c")
    return key, place


def table() -> dict[tuple[str, str], str]:
    """What the page says of each pair, by source and format."""
    page = (ROOT / "docs/how-to/export.md").read_text().partition("## An exported file, exported again")[2]
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("|")
    ]
    columns = [cell.strip("`") for cell in lines[0][1:]]
    cells = {row[0]: row[1:] for row in lines[2:]}
    return {(key, to): cells[says][columns.index(to)] for key, says in ROWS.items() for to in FILES}


@pytest.mark.parametrize("to", FILES)
@pytest.mark.parametrize("source", [*FILES, "int8"])
def test_every_pair_is_as_the_page_says(source: str, to: str, files: tuple[str, Path], tmp_path: Path) -> None:
    key, place = files
    if source == "int8" and key == "tfc":
        pytest.skip("it has no float ends to be in int8")
    says = table()[source, to]
    path, out = place / ("net8-c" if source == "int8" else FILES[source]), tmp_path / FILES[to]
    if says == "no" or (says == "FINN's" and key != "tfc"):
        with pytest.raises(BadInputError) as caught:
            export(str(path), "--to", to, "-o", str(out))
        assert re.search("int8: of their float32|FINN's networks alone", caught.value.message)
        assert f"--to {'c' if source == 'int8' else 'qonnx'} copies it; export the run" in str(caught.value.hint)
        assert not out.exists()
        return
    export(str(path), "--to", to, "-o", str(out))
    if says == "as it is":
        assert {file.name: file.read_bytes() for file in files_of(path)} == {
            one.name: one.read_bytes() for one in files_of(out)
        }
        return
    if to == "c" and source != "qonnx":
        assert read_manifest(out).weights_sha256 == read_manifest(place / "net-c").weights_sha256
    header = read_header(out)
    spec = header.named.spec
    images = torch.randn(16, *spec.input_shape, generator=torch.Generator().manual_seed(1))
    if to != "qonnx" or key == "tfc":
        with torch.inference_mode():
            ours, first = (
                network_again(one, kind, spec)(images)
                for one, kind in ((out, header.kind), (place / FILES["onnx"], "onnx"))
            )
        assert (ours.argmax(1) == first.argmax(1)).all()
        assert (ours - first).abs().max() < 1e-3 * first.std()


def files_of(path: Path) -> list[Path]:
    return sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]


def test_another_prefix_for_a_directory_of_c(files: tuple[str, Path], tmp_path: Path) -> None:
    export(str(files[1] / "net-c"), "--to", "c", "--prefix", "other", "-o", str(tmp_path / "c"))
    assert read_manifest(tmp_path / "c").prefix == "other"


def test_what_changes_the_network_is_refused(files: tuple[str, Path], tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="written again as it is") as caught:
        export(str(files[1] / "net.onnx"), "--input", "64", "--to", "packed", "-o", str(tmp_path / "x.safetensors"))
    assert "export the run" in str(caught.value.hint)
