"""Records say the version of their form: those of before are read, those of a later meliuscli are refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from meliuscli.arch.zoo import load_name
from meliuscli.errors import BadInputError
from meliuscli.report.tables import to_text
from meliuscli.report.works import works_table
from meliuscli.results import NewerRecord, origin, read_record, write_record
from meliuscli.runs import find_runs, load_run, record_path
from meliuscli.search.check import read_check
from meliuscli.search.cost import OPS
from meliuscli.search.finals import Round
from meliuscli.search.resume import reopen
from meliuscli.search.space import load_space

ROOT = Path(__file__).parents[1]
STUDY, CHECK = ROOT / "reports/transfer-cifar10", ROOT / "reports/proxy-cifar10"
FIRST = '{\n  "schema_version": 1,'


def newer(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 2}))


def a_run(reports: Path) -> Path:
    spec = load_name("meliusnet22").model_dump(mode="json")
    nothing = {"mean": None, "spread": None}
    record = {
        "id": "12345678",
        "arch": "meliusnet22",
        "archid": "a",
        "trained_as": spec,
        "dataset": {"name": "cifar10"},
    }
    record |= {"recipe": {"epochs": 1}, "n": 0, "runs": [], "origin": origin()}
    path = record_path(reports, "12345678")
    write_record(path, {**record, "validation_top1": nothing, "test_top1": nothing})
    return path


def test_a_record_begins_with_its_version_and_is_read_without_it(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_record(path, {"a": 1})
    assert path.read_text().startswith(FIRST)
    assert read_record(path) == {"a": 1}
    path.write_text('{"a": 1}')
    assert read_record(path) == {"a": 1}, "of before"


@pytest.mark.parametrize("text", ["", "[]", "7", '{"schema_version": "1"}', '{"schema_version": true}', "[" * 100_000])
def test_what_is_no_record_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"."):
        read_record(path)


def test_a_run_of_a_later_meliuscli_is_named_and_the_others_are_there(tmp_path: Path) -> None:
    path = a_run(tmp_path)
    assert path.read_text().startswith(FIRST)
    later = tmp_path / "run-deadbeef.json"
    shutil.copy(path, later)
    newer(later)
    (run,), broken = find_runs(tmp_path)
    assert run.id == "12345678"
    assert list(broken) == ["deadbeef"]
    with pytest.raises(NewerRecord, match=r"run-deadbeef\.json: its schema_version is 2") as error:
        load_run("deadbeef", tmp_path)
    assert error.value.hint == "a later meliuscli wrote it: update meliuscli to read it"


def test_a_study_and_a_check_of_before_are_read() -> None:
    """The records of `reports/` were written before records had a version."""
    assert "schema_version" not in (STUDY / "finals.json").read_text()
    assert reopen(STUDY).settings.trials == 20
    trainings = Round(
        STUDY / "finals.json", 3, lambda candidate, seed: pytest.fail("none is asked for"), OPS
    ).outcomes()
    assert len(trainings) == 11
    assert all(0 < training["test_top1"] < 1 for seeds in trainings.values() for training in seeds.values())
    _, space, _ = load_space(str(CHECK / "space.toml"))
    assert len(read_check(CHECK, space).networks) == 24


def test_a_study_and_a_check_of_a_later_meliuscli_are_refused(tmp_path: Path) -> None:
    study, check = shutil.copytree(STUDY, tmp_path / "study"), shutil.copytree(CHECK, tmp_path / "check")
    for path in (study / "study.json", study / "finals.json", check / "check.json"):
        newer(path)
    with pytest.raises(BadInputError, match=r"study\.json: its schema_version is 2") as error:
        reopen(study)
    assert error.value.hint == "a later meliuscli wrote it: update meliuscli to read it"
    with pytest.raises(NewerRecord, match=r"finals\.json"):
        Round(study / "finals.json", 3, lambda candidate, seed: pytest.fail("none is asked for"), OPS).outcomes()
    _, space, _ = load_space(str(CHECK / "space.toml"))
    with pytest.raises(NewerRecord, match=r"check\.json"):
        read_check(check, space)
    for kind in ("study", "check"):
        assert f"{kind}:{kind} cannot be read" in to_text(works_table(kind, tmp_path))
