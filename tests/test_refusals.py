"""What cannot be done is refused before it eats the machine, and what can be said is said in any encoding."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Cli, run_here

from meliuscli import memory
from meliuscli.arch.zoo import load_arch, spec_from_fields
from meliuscli.counting.footprint import require_room
from meliuscli.data.batches import prepare
from meliuscli.data.catalog import load_dataset
from meliuscli.errors import BadInputError, MissingError, SpecError, why_unread
from meliuscli.export.c.manifest import read_manifest
from meliuscli.nn.build import build
from meliuscli.results import write_json
from meliuscli.search.axis import Axis, read_axes
from meliuscli.training.recipe import find_recipe
from meliuscli.training.weights import save_weights


@pytest.mark.parametrize(
    ("key", "value"),
    [("epochs", 1e15), ("epochs", 1e308), ("batch_size", 10**8), ("distill_temperature", 1e200), ("eps", 1e300)],
)
def test_a_recipe_has_no_number_that_could_not_be_laid_out(key: str, value: float) -> None:
    """1e15 epochs took 23 GB for the list of their ends, 1e308 of them were an overflow."""
    with pytest.raises(SpecError, match=f"{key}: must be less than or equal"):
        find_recipe("quick", {key: value})


@pytest.mark.parametrize(
    "words",
    [
        ["bench", "--arch", "meliusnet22", "--batch", "1024"],
        ["export", "--arch", "meliusnet22", "--input", "3x4096x4096", "--to", "packed"],
        ["export", "--arch", "meliusnet22", "--input", "3x4096x4096"],
        ["count", "--arch", "meliusnet22", "--input", "3x8192x8192"],
        ["train", "--arch", "meliusnet22", "--input-size", "1024"],
        ["train", "--arch", "meliusnet22", "--batch-size", "65536"],
    ],
    ids=" ".join,
)
def test_what_needs_too_much_memory_is_refused_before_it_is_taken(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`bench --batch 1024` and `export --input 3x4096x4096` ate the machine's memory before they said a word."""
    pytest.importorskip("llvmlite")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(memory, "available_bytes", lambda: 4 * 2**30)
    with pytest.raises(MissingError, match=r"would take about [\d,.]+ GiB of memory, and 4\.0 GiB are free"):
        run_here(*words)
    assert list(tmp_path.iterdir()) == []


def test_the_images_of_a_data_set_are_too_many_at_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 2**30)
    with pytest.raises(MissingError, match="all images of fashion-mnist-mini at 512x512"):
        prepare(load_dataset("fashion-mnist-mini"), 512)


def test_an_axis_of_many_values_is_refused_before_they_are_laid_out() -> None:
    """The list of a range's values ate the memory, as that of the ends of 1e15 epochs did."""
    with pytest.raises(SpecError, match="has more than 4096 values"):
        read_axes("growth_rate", {"low": 1, "high": 10**15})
    axis = read_axes("growth_rate", {"low": 1, "high": 4096})
    assert isinstance(axis, Axis)
    assert len(axis.values) == 4096


def test_what_fits_is_not_refused() -> None:
    require_room(load_arch("meliusnet22").spec, 1, 1.5, "it", "")


@pytest.mark.parametrize("command", ["bench", "export"])
def test_a_seed_has_the_bound_that_torch_has(command: str, cli: Cli) -> None:
    """`--seed 99999999999999999999` was an overflow in torch, and exit 70."""
    done = cli(command, "--arch", "meliusnet22", "--seed", "99999999999999999999")
    assert done.returncode == 2
    assert "--seed" in done.stderr


def test_an_ascii_stdout_gets_the_answer_in_ascii(cli: Cli, tmp_path: Path) -> None:
    """A training of hours ended in exit 70 because its table has a plus-minus sign."""
    record = {
        "id": "12345678",
        "arch": "n\u00e4t",
        "archid": "0" * 12,
        "trained_as": load_arch("meliusnet22").spec.model_dump(mode="json"),
        "dataset": {"name": "mine"},
        "recipe": {"epochs": 1},
        "n": 2,
        "validation_top1": {"mean": 0.5, "spread": 0.1},
        "test_top1": {"mean": 0.5, "spread": 0.1},
        "runs": [],
        "origin": {
            "command": "",
            "time": "2026",
            "machine": {"processor": "", "cores": 1},
            "versions": {"torch": "", "meliuscli": ""},
        },
    }
    write_json(tmp_path / "reports" / "run-12345678.json", record)
    for command in (["show", "run:1234"], ["list", "runs"]):
        done = cli(*command, PYTHONIOENCODING="ascii")
        assert done.returncode == 0, done.stderr
        assert "50.00 +- 10.00" in done.stdout
        assert r"n\xe4t" in done.stdout


def test_a_name_that_is_no_text_can_be_written_and_read_again(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"directory": "\udcff"})
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == {"directory": "\udcff"}


def test_an_allocation_that_fails_is_something_missing(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import meliuscli.counting.analytic as a\n"
        'def broken(*_): raise RuntimeError("[enforce fail] DefaultCPUAllocator: can\'t allocate memory")\n'
        "a.count_spec = broken\n"
    )
    done = cli("count", "--arch", "meliusnet22", PYTHONPATH=f"{tmp_path}:{Path(__file__).parents[1]}")
    assert done.returncode == 3
    assert "not enough memory" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["search", "--budget", "5e8", "--space", "a" * 5000], 2, "File name too long"),
        (["compare", "meliusnet22", "a" * 5000], 2, "unknown network 'aaa"),
    ],
)
def test_names_that_no_file_has_are_no_bug(cli: Cli, words: list[str], code: int, says: str) -> None:
    done = cli(*words)
    assert done.returncode == code
    assert says in done.stderr
    assert len(done.stderr) < 400


@pytest.mark.parametrize(
    ("words", "says", "hint"),
    [
        (["predict", "d.onnx", "a.png"], "d.onnx: is a directory, not a file", None),
        (["predict", "d.safetensors", "a.png"], "d.safetensors: is a directory, not a file", None),
        (["show", "d.packed.safetensors"], "d.packed.safetensors: is a directory, not a file", None),
        (
            ["predict", "n.onnx", "photos"],
            "photos: is a directory; images are named one by one",
            "predict n.onnx photos/",
        ),
        (["predict", "n.onnx", "a.png", "photos"], "photos: is a directory; images are named one by one", None),
        (
            ["predict", "net.safetensors"],
            "nothing is known about the ImageNet accuracy",
            "predict net.safetensors cat.jpg",
        ),
        (["predict", "tfc"], "nothing is known about the ImageNet accuracy", None),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_reason_is_that_of_what_lies_there(
    words: list[str], says: str, hint: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Directories were said not to be there, and images that were forgotten or named by their folder not to be networks."""
    monkeypatch.chdir(tmp_path)
    for name in ("d.onnx", "d.safetensors", "d.packed.safetensors", "photos"):
        Path(name).mkdir()
    spec = load_arch("tfc").spec
    save_weights(build(spec), spec, Path("net.safetensors"))
    with pytest.raises(BadInputError) as caught:
        run_here(*words)
    assert says in caught.value.message
    assert (hint or "") in (caught.value.hint or "")
    assert hint is not None or "cat.jpg" not in (caught.value.hint or "")


@pytest.mark.parametrize("value", [5, None, [], "tfc"])
def test_what_is_wrong_with_a_file_is_not_said_in_pythons_words(value: object, tmp_path: Path) -> None:
    """`argument of type 'int' is not iterable` was said of a manifest."""
    with pytest.raises(SpecError, match=r"net: spec: is no table of fields"):
        spec_from_fields(value, "net: ")  # type: ignore[arg-type]
    texts = dict.fromkeys(("meliuscli", "network", "archid", "weights_sha256"), "x")
    fields = {"format": "meliuscli-c-1", **texts, "spec": value, "files_sha256": value}
    (tmp_path / "manifest.json").write_text(json.dumps(fields))
    with pytest.raises(BadInputError, match="spec is no table"):
        read_manifest(tmp_path)
    spec = load_arch("tfc").spec
    fields |= {"spec": spec.model_dump(mode="json"), "archid": spec.archid, "preprocessing": None}
    (tmp_path / "manifest.json").write_text(json.dumps({**fields, "network": "net", "int8": None}))
    with pytest.raises(BadInputError) as caught:
        read_manifest(tmp_path)
    assert not {"object", "NoneType", "attribute", "iterable"} & set(caught.value.message.split())
    assert why_unread(KeyError("spec")) == "it has no 'spec'"
