"""Wrong invocations, made by changing right ones over all commands: each refusal names what is wrong where the user wrote it,
and a way on. Those of the first part once named another option, an inner error, or said nothing at all."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import torch
import typer
from conftest import run_here
from safetensors.torch import save_file

from meliuscli.arch.zoo import load_name
from meliuscli.errors import MeliusError
from meliuscli.results import write_record
from meliuscli.runs import record_path

SMALL = """
family = "meliusnet"
num_blocks = [1, 1]
growth_rate = 16
transition_channels = [32]
stem = "thumbnail"
stem_channels = 16
input_size = 16
input_channels = 1
num_classes = 10
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a network, a packed file's header, something that is no image, and a record of a later meliuscli."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.toml").write_text(SMALL)
    (tmp_path / "broken.toml").write_text("family = [")
    (tmp_path / "img.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    spec = load_name("meliusnet22").model_dump_json()
    save_file(
        {"a": torch.zeros(1)}, tmp_path / "net.packed.safetensors", {"format": "meliuscli-packed-1", "spec": spec}
    )
    (tmp_path / "reports").mkdir()
    write_record(record_path(tmp_path / "reports", "deadbeef"), {})
    later = record_path(tmp_path / "reports", "deadbeef")
    later.write_text(json.dumps({"schema_version": 9}))
    return tmp_path


def refused(words: str) -> str:
    """What a command that cannot be says: message and hint."""
    with pytest.raises((MeliusError, typer.BadParameter)) as error:
        run_here(*shlex.split(words))
    said = error.value
    return f"{said.message}; {said.hint}" if isinstance(said, MeliusError) else said.format_message()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("worker --study x --storage journal:", "--storage 'journal:': names no file; journal:PATH"),
        ("worker --study x --storage journal:reports", "--storage journal:reports: is a directory; name a file"),
        ("report small.toml --html no/x.html", "--html no/x.html: no such directory no"),
        ("report small.toml --html x.md", "--html x.md: not the name of a web page; name it .html"),
        ("report small.toml --html x.html -o x.md", "--output: --html writes a page, and no other answer"),
        ("report small.toml --html x.html --format csv", "--format: --html writes a page, and no other answer"),
        ("report small.toml --html x.html --storage journal", "--storage: is of a shared study, and small.toml is none"),
        ("import net.packed.safetensors", "a packed network: its weights are signs and thresholds; evaluate, predict"),
        ("check-proxy melius", "unknown search space 'melius'; did you mean meliusnet"),
        ("show space:nosuch", "unknown search space 'nosuch'; known: binarydensenet"),
        ("check-proxy meliusnet --long papr", "unknown recipe 'papr'; did you mean paper"),
        ("show recipe:", "unknown recipe ''; known: paper"),
        ("check-proxy meliusnet --long-dataset cifar", "unknown data set 'cifar'; did you mean cifar10"),
        ("check-proxy --resume --name x", "leave --resume out to start one; there is no check in reports"),
        ("train small.toml --recipe-set epochs", "--recipe-set 'epochs': not of the form key=value; for example --recipe-set"),
        ("show recipe:paper --set epochs=3", "--set and --input change a network, and recipe:paper is a recipe"),
        ("show space:meliusnet --input 32", "--set and --input change a network, and space:meliusnet is a search space"),
        ("show study:x --toml", "--toml: study:x is a study, which has no TOML; leave it out"),
        ("show recipe:quick --toml --format json", "--toml has a format of its own: leave --format out"),
        ("export small.toml --to tflite", "Invalid value for '--to': 'tflite' is not one of 'onnx', 'packed', 'c', 'qonnx'"),
        ("evaluate run:deadbeef", "run-deadbeef.json: its schema_version is 9, and this meliuscli reads up to 1; a later"),
    ],
)  # fmt: skip
def test_the_culprit_is_named_where_the_user_wrote_it(here: Path, words: str, says: str) -> None:
    before = sorted(here.rglob("*"))
    assert says.removesuffix("; ") in refused(words)
    assert sorted(here.rglob("*")) == before, "nothing is written"


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        (
            ("MELIUSCLI_SEARCH_NOSUCH", "1"),
            "MELIUSCLI_SEARCH_NOSUCH: unknown option 'nosuch'; meliuscli search --help names",
        ),
        (("MELIUSCLI_SEARCH_TRIALS", "x"), "MELIUSCLI_SEARCH_TRIALS: trials: "),
        (("MELIUSCLI_SEARCH_FORMAT", "xml"), "MELIUSCLI_SEARCH_FORMAT: format: 'xml' is not one of"),
        ("[", "meliuscli.toml: is no configuration"),
        ("[nosuch]\na = 1", "meliuscli.toml [nosuch]: unknown command 'nosuch'"),
        ("search = 3", "meliuscli.toml: unknown key 'search'"),
        ("[search]\nno-resume = true", "meliuscli.toml [search]: unknown key 'no-resume'"),
        ("[search]\nmax-size = []", "meliuscli.toml [search]: max-size: must be a number or a string, and is []"),
        ("[search]\nworkers = 0", "meliuscli.toml [search]: workers: "),
    ],
)
def test_a_wrong_setting_is_named_with_its_place(
    here: Path, setting: str | tuple[str, str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if isinstance(setting, str):
        (here / "meliuscli.toml").write_text(setting)
    else:
        monkeypatch.setenv(*setting)
    assert says in refused("search --budget 5e8 --print-config")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("worker", "--study"),
        ("worker --study x --storage ftp://x", "unknown kind 'ftp'; journal:PATH, postgresql://"),
        ("worker --study x --storage journal:small.toml", "small.toml: no journal: its first line is no record of a trial"),
        ("worker --study x --time-limit soon", "--time-limit: 'soon' is not a duration; write it as 90s"),
        ("report study:x --storage journal:none.log", "none.log: there is no such journal"),
        ("report run:zz", "only a study has a report to gather; --html FILE"),
        ("report small.toml nosuch --html x.html", "unknown network 'nosuch'"),
        ("import small.toml", "its ending does not say what it is; --from names it"),
        ("import .", "is a directory, not a file of weights"),
        ("import img.png --from lark", "unknown format 'lark'; did you mean larq"),
        ("evaluate small.toml", "no trained network; name run:ID"),
        ("evaluate run:", "unknown run ''"),
        ("evaluate net.packed.safetensors --seed 3", "--seed: names a training of run:ID, and none is given"),
        ("predict meliusnet22 --top 3", "--top: for images, and none are given"),
        ("predict meliusnet22 img.png", "meliusnet22: no trained network"),
        ("predict small.toml", "the evidence is of input_size = 224, not 16"),
        ("check-proxy small.toml", "small.toml: target: missing; a search space has the tables target"),
        ("check-proxy meliusnet --check small.toml", "small.toml: family: unknown key; known keys: long, proxies"),
        ("check-proxy meliusnet --at-fraction 2", "--at-fraction 2: must lie between 0 and 1"),
        ("check-proxy --resume --force --name x", "--resume and --force exclude each other"),
        ("export small.toml --to c -o small.toml", "--output small.toml: is what the answer is about; name another file"),
        ("export meliusnet22 --to c --float-bits 4", "--float-bits 4: stem and head have 32 bits, or 8"),
        ("export small.toml --to onnx --prefix a", "--prefix: is for --to c"),
        ("export small.toml --to packed --dataset cifar10", "--dataset and --data: are for --float-bits 8"),
        ("export small.toml --weights broken.toml", "broken.toml: corrupt, or no safetensors file"),
        ("train small.toml --report-to nosuch", "--report-to: unknown tracker 'nosuch'; known: mlflow, tensorboard"),
        ("train small.toml --recipe broken.toml", "broken.toml: not valid TOML"),
        ("train small.toml --recipe small.toml", "small.toml: family: unknown key"),
        ("train small.toml --epochs 1 --recipe-set epochs=2", "--epochs and --recipe-set epochs: they say the same"),
        ("train small.toml --teacher meliusnet22", "--teacher 'meliusnet22': not of the form run:ID"),
        ("search --budget 5e8 --lag x", "--lag x: must be a number from 1 on, or none"),
        ("search --budget 5e8 --storage journal:x.log", "--storage: the study needs a name; add --study NAME"),
    ],
)  # fmt: skip
def test_other_mutations_are_refused_as_they_should_be(here: Path, words: str, says: str) -> None:
    assert says in refused(words)
    assert not list(here.glob("*.html"))
