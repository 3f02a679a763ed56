"""Wrong invocations of a new user's: nothing is written over, nothing is ignored, and the culprit is named where it stands."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import TINY_SPACE, run_here

from meliuscli.arch.zoo import load_arch
from meliuscli.errors import BadInputError, InterruptedByUser, MissingError
from meliuscli.results import record_text, write_bytes
from meliuscli.search import backend, together
from meliuscli.search.storage import Journal
from meliuscli.search.worker import Leave
from meliuscli.work.listener import Listener


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A network, a space, a module, an image, and the study of one search."""
    monkeypatch.chdir(tmp_path)
    Path("net.toml").write_text(load_arch("meliusnet22").spec.to_toml())
    Path("tiny.toml").write_text(TINY_SPACE)
    Path("own.py").write_text("def make(): ...\n")
    Path("cat.png").write_bytes(b"")
    study = Path("reports/s")
    study.mkdir(parents=True)
    Journal(study / "journal.log")
    settings = {"space": "tiny", "budget": 1e8, "trials": 1, "seed": 0, "sampler": "random", "finalists": 1}
    about = {"command": "meliuscli search", "time": "", "dataset": {"name": ""}, "versions": {}, "machine": {}}
    record = {"settings": {**settings, "final_seeds": 1, "lag": 4}, "origin": about}
    (study / "study.json").write_text(record_text(record))
    (study / "space.toml").write_text(TINY_SPACE)
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        "count net.toml --no-verify -o net.toml",
        "count ./net.toml --no-verify -o net.toml",
        "count own.py:make -o own.py",
        "compare meliusnet22 net.toml -o net.toml",
        "compare meliusnet22 net.toml --pareto net.toml",
        "show space:tiny.toml -o tiny.toml",
        "show net.toml --toml -o net.toml",
        "report net.toml --html net.toml",
        "predict run:1234 cat.png -o cat.png",
        "search --budget 1e8 --space tiny.toml -o tiny.toml",
        "check-proxy tiny.toml -o tiny.toml",
        "train net.toml -o net.toml",
        "bench net.toml -o net.toml",
        "export own.py:make -o own.py --force",
        "cite net.toml -o net.toml",
    ],
)
def test_an_answer_is_not_written_over_what_it_is_about(words: str, here: Path) -> None:
    """`evaluate net.onnx -o net.onnx` left a table where the network had been."""
    before = {path: path.read_bytes() for path in here.iterdir() if path.is_file()}
    with pytest.raises(BadInputError, match="is what the answer is about"):
        run_here(*words.split())
    assert {path: path.read_bytes() for path in here.iterdir() if path.is_file()} == before


def test_a_pipe_is_written_to_and_a_link_is_written_through(here: Path) -> None:
    """`-o /dev/null` made a file of it, where one may write there; and a link became a file."""
    os.mkfifo("pipe")
    reader = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_bytes(Path("pipe"), b"answer")
    assert os.read(reader, 100) == b"answer"
    os.close(reader)
    assert Path("pipe").is_fifo()
    Path("link.csv").symlink_to("there.csv")
    for content in (b"one", b"two"):
        write_bytes(Path("link.csv"), content)
        assert Path("link.csv").is_symlink()
        assert Path("there.csv").read_bytes() == content
    assert [path.name for path in here.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("compare --all -o x.onnx", r"x\.onnx: this answer is text, and no \.onnx file"),
        ("count meliusnet22 --no-verify -o x.html", r"this answer is text, and no \.html file"),
        ("show space:meliusnet -o x.png", r"this answer is text, and no \.png file"),
        ("worker --study ../x", r"--study '\.\./x': must be a plain folder name"),
        ("worker --study=", "--study '': must be a plain folder name"),
        ("search --budget 1e8 --storage journal --study ../x", "must be a plain folder name"),
        ("worker --study s", r"reports/s/journal\.log: holds the study of one search, which workers cannot share"),
        ("worker --study s --storage journal:net.toml", r"net\.toml: no journal: its first line is no record"),
        ("report study:", "unknown study ''"),
        ("report study:other", "unknown study 'other'"),
        ("report study:../reports/s", r"unknown study '\.\./reports/s'"),
        ("search --budget 1e8,,2e8", "--budget '1e8,,2e8': one of its parts is empty"),
        ("search --budget ,", "one of its parts is empty"),
        ("train net.toml --reports own.py", r"--reports own\.py: is a file, and a directory is needed"),
        ("import cat.png --reports own.py", r"--reports own\.py: is a file"),
        ("list runs --reports own.py", r"--reports own\.py: is a file"),
    ],
)
def test_the_culprit_is_named(words: str, says: str) -> None:
    with pytest.raises(BadInputError, match=says):
        run_here(*words.split())


def test_a_page_without_a_directory_is_refused_before_it_is_made(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(MissingError, match=r"--html no/x\.html: no such directory no"):
        run_here("report", "meliusnet22", "--html", "no/x.html")
    assert "reading" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value", "words", "says"),
    [
        ("COUNT_SET", "a=1 'b", "count meliusnet22", "MELIUSCLI_COUNT_SET: set: No closing quotation"),
        ("REPORTS", "own.py", "train net.toml", "MELIUSCLI_REPORTS: --reports own.py: is a file"),
        ("REPORTS", "no", "list runs", "MELIUSCLI_REPORTS: --reports no: no such directory"),
        ("SEARCH_BUDGET", "abc", "search", "MELIUSCLI_SEARCH_BUDGET: --budget: 'abc' is not a count"),
        ("REPORT_HTML", "x.json", "report meliusnet22", "MELIUSCLI_REPORT_HTML: --html x.json: not the name of a web"),
        ("COUNT_MAX_RAM", "4XB", "count meliusnet22", "MELIUSCLI_COUNT_MAX_RAM: --max-ram: '4XB' is not a size"),
        (
            "CACHE",
            "net.toml",
            "search --budget 5ms --objectives accuracy,latency",
            "MELIUSCLI_CACHE=net.toml: is a file",
        ),
    ],
)
def test_a_variable_is_named_as_the_culprit(
    name: str, value: str, words: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error said `--reports no` to somebody who had written no such option; quotes that do not close were exit 70."""
    if name == "CACHE":
        pytest.importorskip("llvmlite")
    monkeypatch.setenv(f"MELIUSCLI_{name}", value)
    with pytest.raises(BadInputError) as caught:
        run_here(*words.split())
    assert caught.value.message.startswith(says)


def test_a_variable_that_nobody_reads_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`MELIUSCLI_FROMAT=json` was passed over in silence."""
    monkeypatch.setenv("MELIUSCLI_FROMAT", "json")
    monkeypatch.setenv("MELIUSCLI_TRAIN_EPOCHS", "3")  # of another command
    run_here("count", "meliusnet22", "--no-verify")
    said = capsys.readouterr().err
    assert said == (
        "warning: no command reads the environment variable MELIUSCLI_FROMAT: did you mean MELIUSCLI_FORMAT?\n"
    )


class Heard(Listener):
    """What was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def talk(self, message: str) -> None:
        self.said.append(message)


def _refusing() -> None:
    raise ConnectionError("connection refused")


def test_a_server_that_does_not_answer_is_said_to_be_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker was silent for 45 seconds, and deaf to Ctrl-C."""
    monkeypatch.setattr(backend.time, "sleep", lambda seconds: None)
    heard, leave = Heard(), Leave()
    waits = together._until_due(leave, heard)
    asked = []

    def waited(reason: str) -> bool:
        asked.append(reason)
        leave.reason = "SIGTERM" if len(asked) == 3 else None
        return waits(reason)

    with pytest.raises(MissingError, match="db: cannot be reached: connection refused"):
        backend.reached(_refusing, "db", (ConnectionError,), waited)
    assert len(asked) == 3
    assert heard.said == ["db: cannot be reached: connection refused; it is waited for, for up to 45 s ..."]
    leave.interrupted = True
    with pytest.raises(InterruptedByUser, match="nothing was begun"):
        backend.reached(_refusing, "db", (ConnectionError,), waits)
