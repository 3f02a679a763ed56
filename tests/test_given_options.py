"""An option that is given is used or refused, and a network can be named wherever one is asked for."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from conftest import Cli, run_here

from meliuscli.arch.zoo import load_arch, load_name
from meliuscli.cli.app import make_app
from meliuscli.errors import BadInputError, MeliusError
from meliuscli.results import write_json
from meliuscli.training.weights import read_spec, save_weights
from meliuscli.version import __version__


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("count --arch meliusnet22 --arch meliusnet29", "--arch is given 2 times"),
        ("count meliusnet22 --input 32 --input 64", "--input is given 2 times"),
        ("search --budget 5e8 --budget 1e9", "--budget is given 2 times"),
        ("count meliusnet22 --arch meliusnet29", "give one network"),
        ("count meliusnet22 -o x.json --format csv", r"\.json is for json, and --format is csv"),
        ("cite -o x.csv", "this answer is text, not csv"),
        ("export meliusnet22 -o -", "a network is no text for stdout"),
        ("count /dev/zero", r"has more than 1,048,576 bytes"),
        ("export meliusnet22 -o x.onnx --to packed", r"\.onnx is for onnx, and --to is packed"),
        ("export --weights run:1234 --set growth_rate=32", "--set: the network of run:1234 is what was trained"),
        ("train meliusnet22 --set num_classes=7", "--set num_classes: what is trained has num_classes = 10"),
        ("train meliusnet22 --set stem=imagenet", "--set stem: what is trained has stem = thumbnail"),
        ("train meliusnet22 --set input_size=64", "--set input_size: what is trained has input_size = 32"),
        ("list --format csv", "CSV is one table"),
        ("list archs --reports here", "--reports here: is where runs lie"),
        ("train meliusnet22 --epochs 1 --recipe-set epochs=2", "--epochs and --recipe-set epochs"),
        ("train meliusnet22 --skip-bad", "--skip-bad: is for image folders"),
        ("train meliusnet22 -o no/where.json", "no such directory no"),
        ("search --budget 5e8 -o no/where.json", "no such directory no"),
        ("train mynet.py:make_net", "mynet.py: no such file"),
        ("show mynet.py", "a module of your own can be counted, compared, timed, trained and exported"),
        ("count .", "is a directory, not a network"),
        ("count", "which network"),
        ("train", "which network"),
        ("bench", "which network"),
        ("export", "which network"),
        ("compare meliusnet22 binaryalexnet --input 32", "binaryalexnet: input_size: too small"),
        ("count meliusnet22 --input 224x224x3", "channels come first"),
        ("compare meliusnet22 qqqqqqq", "unknown network 'qqqqqqq'"),
    ],
)
def test_what_is_given_is_used_or_refused(words: str, says: str) -> None:
    """`export --weights run:ID --set growth_rate=32` and `train --set num_classes=7` were ignored, and the run was
    called by it."""
    with pytest.raises(MeliusError, match=says):
        run_here(*words.split())
    assert list(Path().iterdir()) == []


def test_an_unknown_network_does_not_list_all_of_them() -> None:
    """`compare X nosuch` answered with 55 names."""
    with pytest.raises(BadInputError) as caught:
        load_arch("qqqqqqq")
    assert caught.value.hint == "meliuscli list names the 65 known"


@pytest.mark.parametrize("words", ["count meliusnet22 --no-verify", "count --arch meliusnet22 --no-verify"])
def test_a_network_is_an_argument_too(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`count meliusnet22` was "Missing option --arch"."""
    run_here(*words.split())
    assert "4,624,220,160" in capsys.readouterr().out


def test_a_network_comes_from_stdin(cli: Cli) -> None:
    text = load_name("meliusnet29").to_toml()
    command = [sys.executable, "-m", "meliuscli", "count", "-", "--no-verify", "--format", "json"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout)["archid"] == load_name("meliusnet29").archid
    assert (
        "stdin: not valid TOML"
        in subprocess.run(command, input="[", capture_output=True, text=True, timeout=60, check=False).stderr
    )


@pytest.mark.parametrize(
    ("suffix", "begins"), [("json", "{"), ("csv", "part,"), ("tex", "% no room for: output"), ("md", "**")]
)
def test_the_suffix_of_a_file_chooses_its_format(suffix: str, begins: str) -> None:
    """`-o x.tex` and `-o x.json` held a plain table."""
    run_here("count", "meliusnet22", "--no-verify", "-o", f"x.{suffix}")
    assert Path(f"x.{suffix}").read_text().startswith(begins)


def test_a_file_named_dash_is_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    run_here("cite", "meliusnet22", "-o", "-")
    assert "@" in capsys.readouterr().out
    assert list(Path().iterdir()) == []


def test_export_writes_over_nothing(tmp_path: Path) -> None:
    """`export` wrote over a file of the user's without a word."""
    (tmp_path / "x.onnx").write_text("mine")
    with pytest.raises(BadInputError, match=r"x\.onnx exists"):
        run_here("export", "meliusnet22", "-o", "x.onnx")
    assert (tmp_path / "x.onnx").read_text() == "mine"


@pytest.mark.parametrize("words", [["--debug", "count", "nonet"], ["count", "nonet", "--debug"]])
def test_debug_stands_anywhere(words: list[str], cli: Cli) -> None:
    """Whoever was asked to report a fault with it behind a command met "No such option: --debug"."""
    assert "Traceback" in cli(*words).stderr


def test_the_habits_of_other_tools(cli: Cli) -> None:
    assert "Usage" in cli("-h").stdout
    assert "--max-size" in cli("count", "-h").stdout == cli("help", "count").stdout
    assert cli("-V").stdout.startswith("meliuscli ")
    assert cli("compare", "--all", "--input", "32", "-q", "-o", "x.csv").stderr == ""


def test_talk_goes_to_a_log_too(cli: Cli, tmp_path: Path) -> None:
    done = cli("compare", "--all", "--input", "32", "--log-file", "talk.log", "-q", "-o", "x.csv")
    assert (done.returncode, done.stderr) == (0, "")
    assert cli("--log-file=talk.log", "count", "nonet").returncode == 2
    log = (tmp_path / "talk.log").read_text()
    assert "left out: binaryalexnet" in log
    assert "error: unknown network 'nonet'" in log
    assert cli("count", "meliusnet22", "--log-file", "no/where").returncode == 3


def test_what_all_leaves_out_is_named(cli: Cli) -> None:
    """`compare --all --input 32` did not say which networks cannot be so small."""
    done = cli("compare", "--all", "--input", "32", "--format", "csv")
    assert done.returncode == 0
    assert "left out: binaryalexnet: input_size: too small" in done.stderr
    assert len(list(csv.DictReader(io.StringIO(done.stdout)))) > 30


def test_csv_and_latex_of_count_hold_the_answer(cli: Cli) -> None:
    """BOPs, FLOPs and OPs were in the table alone."""
    rows = list(csv.DictReader(io.StringIO(cli("count", "meliusnet22", "--no-verify", "--format", "csv").stdout)))
    assert (rows[-1]["BOPs"], rows[-1]["FLOPs"], rows[-1]["OPs"]) == ("4624220160", "135876608", "208130048")
    assert sum(int(row["FLOPs"]) for row in rows[:-1]) == 135_876_608
    latex = cli("count", "meliusnet22", "--no-verify", "--format", "latex").stdout
    assert "OPs 208,130,048" in latex


def test_json_holds_numbers_where_it_means_numbers(cli: Cli) -> None:
    """Published accuracies were texts, and counts were "26.843M"."""
    rows = json.loads(cli("list", "archs", "--format", "json").stdout)["archs"]
    assert all(isinstance(row["published_top1"], float | None) for row in rows)
    assert rows[0]["published_top1"] == 63.6


# A run's network is the one that was trained


@pytest.fixture
def run(tmp_path: Path) -> str:
    """A recorded training of MeliusNet22 at 32x32."""
    target = load_name("meliusnet22")
    trained = target.replace(stem="thumbnail", num_classes=10, input_channels=1, input_size=32)
    one = {"seed": 0, "validation_top1": 0.5, "test_top1": 0.4, "train_loss": 1.0, "seconds": 1, "images_per_second": 1}
    record = {
        "id": "12345678",
        "arch": "meliusnet22",
        "archid": target.archid,
        "trained_as": trained.model_dump(mode="json"),
        "dataset": {"name": "mine"},
        "recipe": {"epochs": 1},
        "n": 1,
        "validation_top1": {"mean": 0.5, "spread": None},
        "test_top1": {"mean": 0.4, "spread": None},
        "runs": [one],
        "origin": {
            "command": "",
            "time": "2026",
            "machine": {"processor": "", "cores": 1},
            "versions": {"torch": "", "meliuscli": ""},
        },
    }
    write_json(tmp_path / "reports" / "run-12345678.json", record)
    return trained.archid


def test_the_ops_beside_an_accuracy_are_those_of_what_was_trained(run: str, cli: Cli) -> None:
    """At 32x32 another stem is trained, with eleven times the OPs that ``count --input 32`` says."""
    (row,) = csv.DictReader(io.StringIO(cli("list", "runs", "--format", "csv").stdout))
    counted = json.loads(cli("count", "run:1234", "--no-verify", "--format", "json").stdout)
    assert counted["archid"] == run == row["trained_archid"] != row["archid"]
    assert float(row["trained_ops"]) == counted["derived"]["ops"]
    assert float(row["test_top1"]) == 0.4
    shown = cli("show", "run:1234").stdout
    assert run in shown
    assert "OPs" in shown


def test_run_id_is_a_network_everywhere(run: str, cli: Cli) -> None:
    """A run was known to `show` and `export` alone."""
    compared = json.loads(cli("compare", "meliusnet22", "run:12345678", "--format", "json").stdout)["networks"]
    assert compared[1]["archid"] == run
    assert 'stem = "thumbnail"' in cli("show", "run:1234", "--toml").stdout
    assert cli("count", "run:1234", "--set", "growth_rate=32").returncode == 2
    assert cli("show", "run:1234", "--input", "64").returncode == 2
    for command in ("bench", "predict"):
        assert "nowhere: no recorded runs" in cli(command, "run:1234", "--reports", "nowhere").stderr


def test_a_file_of_weights_knows_its_network(tmp_path: Path) -> None:
    from meliuscli.nn.build import build

    spec = load_arch(
        "meliusnet22", ["num_blocks=[1]", "transition_channels=[]", "dilation=[1]", "growth_rate=[8]"]
    ).spec
    save_weights(build(spec), spec, tmp_path / "w.safetensors")
    assert read_spec(tmp_path / "w.safetensors") == spec
    with pytest.raises(MeliusError, match="no such file") as caught:
        run_here("export", "--weights", "d8b19129")
    assert caught.value.hint == "did you mean run:d8b19129?"


# Seeds, messages, ignored signals


def test_a_job_array_trains_a_seed_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = ["meliusnet22", "--set", "num_blocks=[1,1]", "--set", "transition_channels=[32]", "--input-size", "8"]
    run_here(
        "train",
        *network,
        "--width-divisor",
        "4",
        "--epochs",
        "0.2",
        "--seed",
        "3",
        "--format",
        "json",
        "--threads",
        "1",
    )
    record = json.loads(capsys.readouterr().out)
    assert [one["seed"] for one in record["runs"]] == [3]
    assert record["execution"]["threads"] == 1
    assert (tmp_path / "reports" / f"run-{record['id']}-seed3.safetensors").is_file()
    assert record["trained"]["archid"] != record["archid"]


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        ("search --resume", "--resume: which study?", "there is no study in reports"),
        ("search --budget 5ms", "a time is a budget of latency", "--objectives accuracy,latency"),
        ("search --resume --study none", "no study to resume", "there is no study in reports"),
        ("search --budget 5e8 --space net.toml", "net.toml: target: missing", "a network's file none"),
        ("count meliusnet22 --set growth_rate=-48", "growth_rate.1: must be greater", ""),
        ("count meliusnet22 --set num_blocks=[]", "num_blocks: must have at least 1 item, not 0$", ""),
    ],
)
def test_messages_name_the_culprit_and_the_way(words: str, message: str, hint: str) -> None:
    """pydantic's inner names (`function-after[_one_form(), Axis]`), hints at networks for a factory, and their kin."""
    Path("net.toml").write_text(load_name("meliusnet22").to_toml())
    with pytest.raises(MeliusError, match=message) as caught:
        run_here(*words.split())
    assert hint in (caught.value.hint or "")


def test_an_ignored_interrupt_stays_ignored() -> None:
    """Behind nohup a training must not be interrupted by what is not meant for it."""
    import signal

    from meliuscli.work.interrupts import first_interrupt_waits

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with first_interrupt_waits() as asked:
            signal.raise_signal(signal.SIGINT)
            assert not asked()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_sigterm_is_heard_as_an_interrupt_and_known_by_its_exit_code() -> None:
    """The first waits for the step at hand, the second does not; where nobody hears interrupts it ends the process as ever."""
    import signal

    from meliuscli.work import interrupts

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with interrupts.first_interrupt_waits():
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        interrupts.hear_interrupts()
        with interrupts.first_interrupt_waits() as asked:
            signal.raise_signal(signal.SIGTERM)
            assert asked()
            assert interrupts.exit_code() == 143
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    finally:
        interrupts._came.clear()
        for number, handler in before.items():
            signal.signal(number, handler)


def test_what_takes_long_is_named_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`train` measured for 110 seconds, with nothing on a pipe."""
    import time

    from meliuscli.cli import console, pulse

    monkeypatch.setattr(pulse, "QUIET_SECONDS", 0.05)
    monkeypatch.setattr(pulse, "SHORT_SECONDS", 0.05)
    with console.status("measuring"):
        time.sleep(0.3)
    with console.status("quick"):
        pass
    time.sleep(0.2)
    assert capsys.readouterr().err == "measuring ...\n"


@pytest.mark.parametrize(
    ("network", "theirs", "more"), [("reactnet-b", 28_819_816, 992), ("birealnet50", 25_730_088, 1024)]
)
def test_explain_says_why_authors_store_more(network: str, theirs: int, more: int) -> None:
    """ReActNet #20 and #21: the authors' files have 992 shifts, and Bi-RealNet-50's 1,024 weights, more than ours."""
    from meliuscli.counting.analytic import count_spec
    from meliuscli.report.explain import explain_page
    from meliuscli.report.prose import part_text

    ours = count_spec(load_name(network)).total.params
    assert theirs - ours == more
    page = " ".join(map(part_text, explain_page(network)))
    assert f"{ours:,}" in page
    assert f"{theirs:,}" in page


@pytest.mark.parametrize("place", [0, 2])
def test_verbose_says_what_it_took_and_on_what(cli: Cli, place: int) -> None:
    words = ["count", "meliusnet22", "--no-verify"]
    words.insert(place, "-v")
    done = cli(*words)
    assert done.returncode == 0
    took, machine = done.stderr.splitlines()[-2:]
    assert re.fullmatch(r"took [\d.]+ s, [\d.]+ s of CPU time, at most [\d.]+ MiB in a process", took)
    assert f"meliuscli {__version__}" in machine
    assert done.stdout == cli("count", "meliusnet22", "--no-verify").stdout


@pytest.mark.parametrize(
    ("words", "here"),
    [
        (("train", "tfc", "--input", "24"), "train has --input-size"),
        (("count", "tfc", "--input-size=24"), "count has --input"),
        (("worker", "--name", "x"), "worker has --study"),
        (("check-proxy", "--study", "x"), "check-proxy has --name"),
        (("search", "--max-ops", "5e8"), "search has --budget"),
    ],
)
def test_an_option_that_has_another_name_here_is_refused_with_it(cli: Cli, words: tuple[str, ...], here: str) -> None:
    done = cli(*words)
    assert done.returncode == 2
    assert here in done.stderr


def test_an_operand_is_written_in_capitals_in_every_usage() -> None:
    group: Any = typer.main.get_command(make_app([]))
    for name, command in group.commands.items():
        arguments = [one for one in command.params if one.param_type_name == "argument"]
        named = [one.metavar for one in arguments if name != "list"]  # which has a choice of words
        assert all(metavar and metavar.isupper() and metavar.isalpha() for metavar in named), (name, named)
