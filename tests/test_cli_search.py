"""Training and searching from the command line, for real: results, resuming, interruptions, corrupt studies."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from conftest import Cli, run_here
from forked import Forks

from meliuscli.arch.zoo import spec_from_fields
from meliuscli.data.batches import prepare
from meliuscli.data.catalog import load_dataset
from meliuscli.errors import BadInputError, InterruptedByUser
from meliuscli.nn.build import build
from meliuscli.report import gathered, study_page
from meliuscli.report.runs import runs_table
from meliuscli.report.study import read_study
from meliuscli.report.tables import to_text
from meliuscli.runs import find_runs, list_runs, load_run, weights_path
from meliuscli.training.scoring import evaluate
from meliuscli.training.weights import load_weights


def test_train_reports_mean_and_spread_and_writes_its_origin(cli: Cli, tmp_path: Path) -> None:
    done = cli(
        *("train", "--arch", "meliusnet22", "--set", "num_blocks=[1,1]", "--set", "transition_channels=[32]"),
        *("--input-size", "8", "--width-divisor", "4", "--epochs", "0.2", "--seeds", "2", "--format", "json"),
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    (path,) = (tmp_path / "reports").glob("*.json")
    assert {"schema_version": 1, **json.loads(path.read_text())} == result
    assert result["n"] == 2
    tests = [run["test_top1"] for run in result["runs"]]
    assert result["test_top1"]["mean"] == pytest.approx(sum(tests) / 2)
    assert result["test_top1"]["spread"] == pytest.approx(abs(tests[0] - tests[1]) / 2**0.5)
    assert result["recipe"]["epochs"] == 0.2
    assert result["origin"]["command"].startswith("meliuscli train")
    assert {"torch", "meliuscli"} <= set(result["origin"]["versions"])
    assert "1 of 2 epochs:" in done.stderr


TRAIN = (
    *("train", "--arch", "meliusnet22", "--set", "num_blocks=[1,1]", "--set", "transition_channels=[32]"),
    *("--input-size", "8", "--width-divisor", "4", "--epochs", "0.1", "--seeds", "1"),
)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Path:
    """A directory with one recorded run in ``reports``."""
    directory = tmp_path_factory.mktemp("recorded")
    forks.run(TRAIN, directory).check_returncode()
    return directory


def test_runs_are_recorded_listed_and_shown(recorded: Path, cli: Cli) -> None:
    (path,) = (recorded / "reports").glob("run-*.json")
    record = json.loads(path.read_text())
    listed = json.loads(cli("list", "runs", "--format", "json", cwd=recorded).stdout)["runs"]
    assert [run["id"] for run in listed] == [record["id"]]
    shown = cli("show", f"run:{record['id'][:5]}", cwd=recorded)
    assert shown.returncode == 0, shown.stderr
    assert f"{100 * record['runs'][0]['test_top1']:.2f}" in shown.stdout
    assert "made by: meliuscli train" in shown.stdout
    assert json.loads(cli("show", f"run:{record['id']}", "--format", "json", cwd=recorded).stdout) == {
        "schema_version": 1,
        **record,
    }


def test_the_weights_of_a_run_are_those_that_were_scored(recorded: Path) -> None:
    (path,) = (recorded / "reports").glob("run-*.json")
    record = json.loads(path.read_text())
    spec = spec_from_fields(record["trained_as"])
    network = build(spec)
    load_weights(network, spec, weights_path(path.parent, record["id"], 0))
    data = prepare(load_dataset("fashion-mnist-mini"), spec.input_size)
    assert evaluate(network, data, data.test)[1] == pytest.approx(record["runs"][0]["test_top1"])
    assert evaluate(network, data, data.validation)[1] == pytest.approx(record["runs"][0]["validation_top1"])


def test_weights_that_are_not_there_corrupt_or_of_another_network(recorded: Path, tmp_path: Path) -> None:
    (path,) = (recorded / "reports").glob("*.safetensors")
    (record,) = (recorded / "reports").glob("run-*.json")
    spec = spec_from_fields(json.loads(record.read_text())["trained_as"])
    with pytest.raises(BadInputError, match="no such file"):
        load_weights(build(spec), spec, tmp_path / "none.safetensors")
    broken = tmp_path / "broken.safetensors"
    for content in (path.read_bytes()[:-10], b"", b"not weights", path.read_bytes()[:100]):
        broken.write_bytes(content)
        with pytest.raises(BadInputError, match=r"broken\.safetensors: corrupt"):
            load_weights(build(spec), spec, broken)
    other = spec.replace(num_classes=11)
    with pytest.raises(BadInputError, match="weights of another network"):
        load_weights(build(other), other, path)


@pytest.mark.parametrize(
    ("name", "code", "says"),
    [("run:zzz", 2, "unknown run"), ("run:", 2, "unknown run"), ("run:zzz --reports nowhere", 2, "no recorded runs")],
)
def test_runs_that_are_not_there(recorded: Path, cli: Cli, name: str, code: int, says: str) -> None:
    done = cli("show", *name.split(), cwd=recorded)
    assert done.returncode == code
    assert says in done.stderr


@pytest.mark.parametrize("content", ["{", "[]", '{"id": "x"}', "\x00", '{"runs": 5}', "[" * 5000])
def test_a_corrupt_record_is_named_and_the_others_are_there(recorded: Path, tmp_path: Path, content: str) -> None:
    """One broken `run-deadbeef.json` stood in the way of all other runs."""
    reports = tmp_path / "reports"
    shutil.copytree(recorded / "reports", reports)
    (whole,), nothing = find_runs(reports)
    assert not nothing
    (reports / "run-deadbeef.json").write_text(content)
    runs, broken = list_runs(reports)
    assert [run.id for run in runs] == [whole.id]
    assert "run-deadbeef.json: not a recorded run" in broken["deadbeef"].message
    assert "run:deadbeef cannot be read and is left out" in to_text(runs_table(runs, broken))
    assert load_run(whole.id, reports).fields == whole.fields
    with pytest.raises(BadInputError, match=r"run-deadbeef\.json: not a recorded run"):
        load_run("deadbeef", reports)


def test_no_runs_is_an_empty_list_and_weights_can_be_left_out(cli: Cli, tmp_path: Path) -> None:
    assert cli("list", "runs").returncode == 0
    assert cli(*TRAIN, "--no-weights").returncode == 0
    assert list((tmp_path / "reports").glob("*.safetensors")) == []


def test_a_training_at_chance_is_a_failed_run_that_is_written_down(cli: Cli, tmp_path: Path) -> None:
    done = cli(
        *("train", "--arch", "meliusnet22", "--set", "num_blocks=[1,1]", "--set", "transition_channels=[32]"),
        *("--input-size", "8", "--width-divisor", "4", "--epochs", "0.01", "--seeds", "2"),
        *("--recipe-set", "learning_rate=1e-9", "--recipe-set", "optimizer=sgd"),
    )
    assert done.returncode == 1
    assert "cannot be told from chance with 5,000 images (the limit is 5" in " ".join(done.stderr.split())
    (path,) = (tmp_path / "reports").glob("*.json")
    result = json.loads(path.read_text())
    assert "cannot be told from chance" in result["failed"]
    assert result["recipe"]["optimizer"] == "sgd"
    assert result["n"] == 1


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--recipe", "none.toml"], "no such file"),
        (["--recipe-set", "optimizer=lion"], "recipe: optimizer: must be"),
        (["--recipe-set", "epochs"], "--recipe-set 'epochs': not of the form key=value"),
        (["--recipe-set", "epochs=1", "--recipe-set", "epochs=2"], "--recipe-set epochs: given twice"),
    ],
)
def test_recipes_that_cannot_be(cli: Cli, args: list[str], says: str) -> None:
    done = cli("train", "--arch", "meliusnet22", *args)
    assert done.returncode == 2
    assert says in done.stderr


SEARCH = (
    "search",
    "--budget",
    "1e8",
    "--space",
    "tiny.toml",
    "--trials",
    "4",
    "--finalists",
    "1",
    "--final-seeds",
    "2",
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Path:
    """A directory with a finished study in it."""
    from conftest import TINY_SPACE

    directory = tmp_path_factory.mktemp("study")
    (directory / "tiny.toml").write_text(TINY_SPACE)
    done = forks.run([*SEARCH, "--workers", "1"], directory)
    assert done.returncode == 0, done.stderr
    assert "Pareto front" in done.stdout
    assert "Finals" in done.stdout
    (directory / "said").write_text(done.stderr)
    return directory


def test_a_search_writes_all_that_it_promises(finished: Path, cli: Cli) -> None:
    study = finished / "reports" / "tiny-100M"
    files = {path.name for path in study.iterdir()}
    assert {"report.md", "trials.csv", "front.csv", "pareto.png", "pareto.svg", "best.toml", "space.toml"} <= files
    assert {"study.json", "journal.log", "finals.json"} <= files
    assert len(list(csv.DictReader(io.StringIO((study / "trials.csv").read_text())))) == 4
    assert (study / "pareto.png").read_bytes().startswith(b"\x89PNG")
    counted = cli("count", "--arch", str(study / "best.toml"), "--format", "json")
    assert counted.returncode == 0
    assert json.loads(counted.stdout)["verified"] is True
    assert json.loads(counted.stdout)["derived"]["ops"] <= 1e8


@pytest.mark.slow
def test_the_report_says_how_to_get_the_same_trials(finished: Path, cli: Cli, tmp_path: Path) -> None:
    page = (finished / "reports" / "tiny-100M" / "report.md").read_text()
    (command,) = re.findall("`(meliuscli search .*)` with the versions", page)
    shutil.copytree(finished / "reports", tmp_path / "reports")
    done = cli(*shlex.split(command)[1:], "--workers", "1")
    assert done.returncode == 0, done.stderr

    def without_seconds(path: Path) -> list[dict[str, str]]:
        return [{**row, "seconds": ""} for row in csv.DictReader(io.StringIO((path / "trials.csv").read_text()))]

    assert without_seconds(tmp_path / "reports" / "tiny-100M-again") == without_seconds(
        finished / "reports" / "tiny-100M"
    )


def test_a_study_is_never_overwritten(finished: Path, cli: Cli) -> None:
    before = {path: path.read_bytes() for path in (finished / "reports" / "tiny-100M").iterdir()}
    refused = cli(*SEARCH, "--study", "tiny-100M", cwd=finished)
    assert refused.returncode == 2
    assert "--resume" in refused.stderr
    resumed = cli("search", "--resume", "--study", "tiny-100M", cwd=finished)
    assert resumed.returncode == 0, resumed.stderr
    for name in ("trials.csv", "front.csv", "finals.json", "best.toml"):
        path = finished / "reports" / "tiny-100M" / name
        assert path.read_bytes() == before[path], name
    for option, value in (("--budget", "2e8"), ("--seed", "1"), ("--trials", "3"), ("--sampler", "tpe")):
        other = cli("search", "--resume", "--study", "tiny-100M", option, value, cwd=finished)
        assert other.returncode == 2
        assert f"was begun with {option}" in other.stderr


@pytest.mark.parametrize("name", ["finals.json", "journal.log", "space.toml"])
def test_a_corrupt_study_is_refused(finished: Path, cli: Cli, tmp_path: Path, name: str) -> None:
    shutil.copytree(finished / "reports", tmp_path / "reports")
    path = tmp_path / "reports" / "tiny-100M" / name
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:1], "garbage", *lines[2:]]) + "\n")
    done = cli("search", "--resume", "--study", "tiny-100M")
    assert done.returncode == 2
    assert name in done.stderr


def test_a_trial_has_one_name_wherever_it_is_named(finished: Path) -> None:
    """Progress counted from 1 what tables call found-0."""
    said = re.findall(r"^(\d) of 4 trials: (found-\d+): ", (finished / "said").read_text(), re.MULTILINE)
    rows = csv.DictReader(io.StringIO((finished / "reports/tiny-100M/trials.csv").read_text()))
    assert said == [(str(index), f"found-{row['trial']}") for index, row in enumerate(rows, 1)]


def _damage(path: Path, kind: str) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    middle = len(lines) // 2
    damaged = {
        "torn": b"".join(lines[:middle]) + lines[middle][:9],
        "lines are gone": b"".join(lines[:-2]),
        "garbage in the middle": b"".join([*lines[:middle], b"garbage\n", *lines[middle + 1 :]]),
        "two lines glued": b"".join([*lines[:middle], lines[middle].strip(), *lines[middle + 1 :]]),
        "no record in the middle": b"".join([*lines[:middle], b"[1]\n", *lines[middle:]]),
        "garbage at the end": b"".join([*lines, b"{}\n"]),
        "bytes": b"".join([*lines[:middle], bytes(range(128, 160)) + b"\n", *lines[middle:]]),
        "emptied": b"",
    }
    path.write_bytes(damaged[kind])


LOST = "has {} trials, and reports/tiny-100M/trials.csv was made of 4: some are lost"


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("torn", LOST.format(0)),
        ("lines are gone", LOST.format(3)),
        ("garbage in the middle", "corrupt: line 21 is no record of a trial"),
        ("two lines glued", "corrupt: line 21 is no record of a trial"),
        ("no record in the middle", "corrupt: line 21 is no record of a trial"),
        ("garbage at the end", "corrupt: line 42 is no record of a trial"),
        ("bytes", "corrupt: line 21 is no record of a trial"),
        ("emptied", LOST.format(0)),
    ],
)
def test_a_damaged_journal_beside_whole_finals_is_named(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, says: str
) -> None:
    """Half of it was shown as the study, and the report of the whole was written over by that of the half."""
    shutil.copytree(finished / "reports", tmp_path / "reports")
    monkeypatch.chdir(tmp_path)
    study = tmp_path / "reports" / "tiny-100M"
    _damage(study / "journal.log", kind)
    before = {path: path.read_bytes() for path in study.iterdir() if path.name != ".lock"}
    for command in ("show", "report"):
        with pytest.raises(BadInputError, match=re.escape("reports/tiny-100M/journal.log")) as caught:
            run_here(command, "study:tiny-100M")
        assert says in caught.value.message
        assert caught.value.hint is not None
        assert caught.value.hint.startswith("restore it, or ")
        assert ("meliuscli search --resume --study tiny-100M" in caught.value.hint) == ("some are lost" in says)
    after = {path: path.read_bytes() for path in study.iterdir() if path.name != ".lock"}
    if kind == "torn":  # whoever writes drops half a line that a kill left
        after[study / "journal.log"] = before[study / "journal.log"]
    assert after == before


def test_finals_say_of_how_many_trials_they_were_made(finished: Path, tmp_path: Path) -> None:
    """A search that was killed in its finals has no table of trials yet."""
    shutil.copytree(finished / "reports", tmp_path / "reports")
    study = tmp_path / "reports" / "tiny-100M"
    (study / "trials.csv").unlink()
    _damage(study / "journal.log", "lines are gone")
    with pytest.raises(BadInputError, match=r"has 3 trials, and .*/finals\.json was made of 4: some are lost"):
        read_study(study)


def test_lost_trials_are_trained_again(finished: Path, cli: Cli, tmp_path: Path) -> None:
    shutil.copytree(finished / "reports", tmp_path / "reports")
    study = tmp_path / "reports" / "tiny-100M"
    before = [row["archid"] for row in csv.DictReader(io.StringIO((study / "trials.csv").read_text()))]
    _damage(study / "journal.log", "lines are gone")
    done = cli("search", "--resume", "--study", "tiny-100M", "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert f"note: reports/tiny-100M/journal.log {LOST.format(3)}, and are trained again" in done.stderr
    assert [row["archid"] for row in csv.DictReader(io.StringIO((study / "trials.csv").read_text()))] == before


def test_an_interrupt_while_the_report_is_written_says_what_is_kept(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After hours of training the last word was \"interrupted\"."""
    shutil.copytree(finished / "reports", tmp_path / "reports")
    monkeypatch.chdir(tmp_path)

    def write(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(study_page, "write_report", write)
    monkeypatch.setattr(gathered, "write_report", write)
    with pytest.raises(InterruptedByUser) as caught:
        run_here("search", "--resume", "--study", "tiny-100M")
    kept = "interrupted while the report was written; all trainings are kept in reports/tiny-100M"
    assert caught.value.message == kept
    assert caught.value.hint == "write it with: meliuscli report study:tiny-100M"
    with pytest.raises(InterruptedByUser, match="the trainings of study:tiny-100M are kept"):
        run_here("report", "study:tiny-100M")


def test_studies_are_listed_and_shown(finished: Path, cli: Cli, tmp_path: Path) -> None:
    shutil.copytree(finished / "reports", tmp_path / "reports")
    (tmp_path / "reports" / "broken").mkdir()
    (tmp_path / "reports" / "broken" / "study.json").write_text("{")
    before = {path: path.read_bytes() for path in (tmp_path / "reports" / "tiny-100M").iterdir()}
    listed = cli("list", "studies")
    assert listed.returncode == 0, listed.stderr
    assert "tiny-100M" in listed.stdout
    assert "study:broken cannot be read" in listed.stdout
    (record,) = json.loads(cli("list", "studies", "--format", "json").stdout)["studies"]
    assert (record["trials"], record["state"]) == (4, "finished")
    shown = cli("show", "study:tiny-100M")
    assert shown.returncode == 0, shown.stderr
    assert "Pareto front" in shown.stdout
    assert "done: 4 of 4 trials" in shown.stderr
    assert record["resume"] is None
    assert "it is finished; report: meliuscli report study:tiny-100M; export: meliuscli export " in shown.stderr
    assert "go on" not in shown.stderr
    assert json.loads(cli("show", "study:tiny-100M", "--format", "json").stdout)["study"] == "reports/tiny-100M"
    assert {path: path.read_bytes() for path in (tmp_path / "reports" / "tiny-100M").iterdir()} == before
    unknown = cli("show", "study:tiny-100")
    assert unknown.returncode == 2
    assert "did you mean tiny-100M?" in unknown.stderr


def test_a_study_on_its_way_is_shown_as_far_as_it_is(finished: Path, cli: Cli, tmp_path: Path) -> None:
    shutil.copytree(finished / "reports", tmp_path / "reports")
    study = tmp_path / "reports" / "tiny-100M"
    (study / "finals.json").unlink()
    (study / "report.md").unlink()
    journal = study / "journal.log"
    journal.write_bytes(journal.read_bytes() + b'{"half": ')
    shown = cli("show", "study:tiny-100M")
    assert shown.returncode == 0, shown.stderr
    assert "0 of 2 finals; go on with: meliuscli search --resume --study tiny-100M" in shown.stderr
    assert journal.read_bytes().endswith(b'{"half": '), "whoever writes it goes on"
    assert "study:tiny-100M is unfinished" in cli("list", "studies").stdout


def test_a_renamed_study_goes_on_where_it_was(finished: Path, cli: Cli, tmp_path: Path) -> None:
    shutil.copytree(finished / "reports" / "tiny-100M", tmp_path / "reports" / "renamed")
    done = cli("search", "--resume", "--study", "renamed")
    assert done.returncode == 0, done.stderr
    assert "trial" not in done.stderr.replace("trials.csv", "")


@pytest.mark.slow
def test_a_finished_study_takes_more_trials(finished: Path, cli: Cli, tmp_path: Path) -> None:
    shutil.copytree(finished / "reports", tmp_path / "reports")
    done = cli("search", "--resume", "--study", "tiny-100M", "--trials", "5")
    assert done.returncode == 0, done.stderr
    rows = [(tmp_path if more else finished) / "reports" / "tiny-100M" / "trials.csv" for more in (False, True)]
    before, after = (path.read_text().splitlines() for path in rows)
    assert after[:-1] == before
    assert len(after) == 6


def test_half_a_line_in_the_journal_is_what_a_kill_leaves(finished: Path, cli: Cli, tmp_path: Path) -> None:
    shutil.copytree(finished / "reports", tmp_path / "reports")
    journal = tmp_path / "reports" / "tiny-100M" / "journal.log"
    with journal.open("ab") as file:
        file.write(b'{"op_code": 5, "worker_id": "x", "tri')
    done = cli("search", "--resume", "--study", "tiny-100M")
    assert done.returncode == 0, done.stderr
