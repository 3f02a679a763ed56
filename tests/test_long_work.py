"""Long work of every kind (a run, a study, a check): begun whole, held by one writer, killed, interrupted, gone on with to
the same result, and refused where it would not be the same."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_SPACE, run_here, write_small_idx
from safetensors.torch import load_file

from meliuscli.errors import BadInputError, MeliusError, MissingError
from meliuscli.work import folders
from meliuscli.work.folders import CHECK, RUN, STUDY, Kind

CLOCK = {"seconds", "images_per_second", "energy_joules"}
"""What differs between two trainings that are the same."""


@dataclass(frozen=True)
class Member:
    """A kind of long work: the command that makes it, a pattern of how a line on stderr begins that says of a step kept, an option that
    asks for something else, and what came of the work."""

    kind: Kind
    begin: tuple[str, ...]
    step: str
    other: tuple[str, ...]
    result: Callable[[Path], object]

    def directory(self, place: Path) -> Path:
        (found,) = self.kind.directories(place / "reports")
        return found

    def resume(self, place: Path) -> list[str]:
        """The words that go on with it, from inside of ``place``."""
        return self.resume_from(self.directory(place), place)

    def resume_from(self, directory: Path, place: Path) -> list[str]:
        return shlex.split(self.kind.resume_command(directory.relative_to(place)))[1:]


def untimed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: untimed(part) for key, part in value.items() if key not in CLOCK}
    return [untimed(part) for part in value] if isinstance(value, list) else value


def trained(place: Path) -> object:
    """The record of the one run, and every bit of its weights."""
    (path,) = (place / "reports").glob("run-*.json")
    record = untimed(json.loads(path.read_text()))
    del record["id"], record["origin"], record["execution"]["notes"]
    weights = [load_file(file) for file in sorted((place / "reports").glob("*.safetensors"))]
    bits = [{name: tensor.numpy().tobytes() for name, tensor in each.items()} for each in weights]
    assert not list((place / "reports").glob("*.checkpoint"))
    return record, bits


def searched(place: Path) -> object:
    (study,) = STUDY.directories(place / "reports")
    trials = list(csv.DictReader(io.StringIO((study / "trials.csv").read_text())))
    return untimed(trials), untimed(json.loads((study / "finals.json").read_text()))


def checked(place: Path) -> object:
    (check,) = CHECK.directories(place / "reports")
    assert (check / "report.md").is_file()
    return untimed(json.loads((check / "check.json").read_text())["trainings"])


DATA = ("--data", "idx")
MEMBERS = [
    Member(
        RUN,
        (
            *("train", "--arch", "meliusnet22", "--set", "num_blocks=[1,1]", "--set", "transition_channels=[32]"),
            *("--input-size", "8", "--width-divisor", "8", "--epochs", "6", "--seeds", "2", "--batch-size", "60"),
            *("--recipe-set", "ema_decay=0.99", "--compile", "off", "--dataset", "idx", *DATA),
        ),
        r"8 of \d+ epochs: ",  # in its second seed
        ("--seeds", "3"),
        trained,
    ),
    Member(
        STUDY,
        (
            *("search", "--budget", "1e8", "--space", "tiny.toml", "--trials", "3", "--finalists", "1"),
            *("--final-seeds", "1", "--workers", "1", *DATA),
        ),
        r"1 of \d+ trials: ",
        ("--seed", "1"),
        searched,
    ),
    Member(
        CHECK,
        ("check-proxy", "tiny.toml", "--networks", "4", "--long-epochs", "0.2", "--workers", "1", *DATA),
        r"1 of \d+ trainings: ",
        ("--seed", "1"),
        checked,
    ),
]


def test_every_kind_of_long_work_is_a_member() -> None:
    kinds = {kind.what for kind in vars(folders).values() if isinstance(kind, Kind)}
    assert {member.kind.what for member in MEMBERS} == kinds


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A space, and 1000 images to train on with 300 to test on in MNIST's format."""
    place = tmp_path_factory.mktemp("files")
    write_files(place)
    return place


def write_files(place: Path) -> None:
    """What the works of ``MEMBERS`` need."""
    (place / "idx").mkdir()
    write_small_idx(place / "idx")
    space = TINY_SPACE.replace('"fashion-mnist-mini"', '"idx"').replace("epochs = 0.05", "epochs = 0.2")
    (place / "tiny.toml").write_text(space.replace("epochs = 0.1", "epochs = 0.4"))


@pytest.fixture(scope="module", params=MEMBERS, ids=lambda member: member.kind.what)
def member(request: pytest.FixtureRequest) -> Member:
    made: Member = request.param
    return made


@pytest.fixture(scope="module")
def whole(member: Member, files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the work was done without a break."""
    place = tmp_path_factory.mktemp("whole")
    shutil.copytree(files, place, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        run_here(*member.begin)
    return place


def start(place: Path, words: Sequence[str], step: str) -> subprocess.Popen[str]:
    """Begin, or go on, in a process group of its own, and wait for a line on stderr that ``step`` matches the beginning of."""
    command = [sys.executable, "-m", "meliuscli", *words]
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, cwd=place, text=True, start_new_session=True, **streams)  # type: ignore[call-overload]
    said = []
    for line in process.stderr:
        said.append(line)
        if re.match(step, line):
            return process
    raise AssertionError("".join(said))


@dataclass(frozen=True)
class Killed:
    place: Path
    refused: MeliusError
    """What another writer was told while the work went on."""
    orphans: list[str]


@pytest.fixture(scope="module")
def killed(member: Member, files: Path, tmp_path_factory: pytest.TempPathFactory) -> Killed:
    """Where the same work was killed on its way, after another process had tried to go on with it."""
    place = tmp_path_factory.mktemp("killed")
    shutil.copytree(files, place, dirs_exist_ok=True)
    process = start(place, member.begin, member.step)
    os.killpg(process.pid, signal.SIGSTOP)  # so that on a busy machine it does not end meanwhile
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        with pytest.raises(MeliusError) as second:
            run_here(*member.resume(place))
    process.kill()
    os.killpg(process.pid, signal.SIGCONT)
    process.communicate(timeout=60)
    return Killed(place, second.value, group_members(process.pid))


def group_members(group: int) -> list[str]:
    """The processes of a group that are left after a while."""
    deadline = time.monotonic() + 20
    while True:
        listed = subprocess.run(["ps", "-eo", "pgid=,stat=,args="], capture_output=True, text=True, check=True).stdout
        rows = [line.split(None, 2) for line in listed.splitlines()]
        found = [row[2] for row in rows if int(row[0]) == group and not row[1].startswith("Z")]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


@pytest.fixture
def left(killed: Killed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, for this test alone, which goes on from inside."""
    shutil.copytree(killed.place, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def content(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if not path.name.startswith(".")}


def test_there_is_one_writer_and_a_kill_leaves_no_orphans(member: Member, killed: Killed) -> None:
    address = member.kind.address(member.directory(killed.place))
    assert isinstance(killed.refused, BadInputError)
    assert killed.refused.message == f"{address}: another process is writing this {member.kind.what}"
    assert killed.orphans == []


def test_killed_then_interrupted_work_goes_on_to_the_same_result(member: Member, whole: Path, left: Path) -> None:
    """Ctrl-C ends with 130, and SIGTERM, which schedulers send to all processes of a job, with 143; both say which command
    goes on, and that command's words are what is run then."""
    directory = member.directory(left)
    process = start(left, member.resume(left), member.step.replace(member.step.split()[0], r"\d+", 1))
    number = signal.SIGTERM if member.kind.what == "study" else signal.SIGINT
    os.killpg(process.pid, number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + number, said
    assert "Traceback" not in said
    assert "killed" not in said
    assert "interrupted; " in said
    command = said.split("continue with: ")[1].splitlines()[0]
    assert shlex.split(command)[1:] == member.resume_from(directory, left)
    run_here(*shlex.split(command)[1:])
    assert member.result(left) == member.result(whole)


def test_work_that_is_begun_is_listed_with_how_to_go_on(
    member: Member, left: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory, plural = member.directory(left), {"study": "studies"}.get(member.kind.what, f"{member.kind.what}s")
    run_here("list", plural)
    said = capsys.readouterr().out
    assert f"{member.kind.address(directory)} is unfinished" in said
    assert f"go on with: {shlex.join(['meliuscli', *member.resume(left)])}\n" in said


def test_other_options_are_refused(member: Member, left: Path) -> None:
    directory = member.directory(left)
    before = content(directory)
    with pytest.raises(BadInputError) as caught:
        run_here(*member.resume(left), *member.other)
    assert caught.value.message.startswith(f"{member.kind.address(directory)} was begun with")
    assert member.other[0] in caught.value.message
    assert f"leave {member.other[0]} out to go on" in (caught.value.hint or "")
    assert content(directory) == before


def test_other_data_are_refused(member: Member, killed: Killed, left: Path) -> None:
    directory = member.directory(left)
    before = content(directory)
    labels = killed.place / "idx" / "train-labels-idx1-ubyte"  # where the work was begun
    values = labels.read_bytes()
    labels.write_bytes(values[:-1] + bytes([(values[-1] + 1) % 10]))
    try:
        with pytest.raises(BadInputError) as caught:
            run_here(*member.resume(left))
    finally:
        labels.write_bytes(values)
    assert caught.value.message == (
        f"{member.kind.address(directory)} was begun with other data: idx: its files have changed"
    )
    assert content(directory) == before
    with member.kind.held(directory):
        pass  # whoever is refused lets go of the folder


@pytest.mark.slow
def test_other_versions_are_said_and_written_down(
    member: Member, left: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = member.directory(left) / member.kind.marker
    path.write_text(path.read_text().replace('"torch": "', '"torch": "0.'))
    run_here(*member.resume(left))
    said = f"note: torch changed since {member.kind.address(path.parent)} was begun; results may differ too"
    assert said in capsys.readouterr().err.splitlines()
    kept = next(file for file in (path, *(left / "reports").glob("run-*.json")) if file.is_file())
    origin = json.loads(kept.read_text())["origin"]
    assert origin["versions"]["torch"].startswith("0.")
    assert origin["resumed_with"]["versions"]["torch"] == torch.__version__


@pytest.mark.parametrize("torn", ["", "{", "[]", '{"plan": 1, "settings": {}, "runs": 3}', "\x00"])
def test_a_torn_file_is_named(member: Member, left: Path, torn: str) -> None:
    path = member.directory(left) / member.kind.marker
    path.write_text(torn)
    with pytest.raises(BadInputError) as caught:
        run_here(*member.resume(left))
    assert caught.value.message.startswith(f"{path.relative_to(left)}: not a {member.kind.what}: ")
    assert "restore it" in (caught.value.hint or "")


@pytest.fixture(params=[errno.ENOSPC, errno.EDQUOT], ids=["full disk", "quota"])
def no_room(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Gives what the system says of it."""

    def full(_file: int) -> None:
        raise OSError(request.param, os.strerror(request.param))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        yield os.strerror(request.param)


def test_a_disk_without_room_leaves_what_was_kept(member: Member, left: Path, no_room: str) -> None:
    directory = member.directory(left)
    before = content(directory)
    with pytest.raises(MissingError, match=f"cannot be written: {no_room}"):
        run_here(*member.resume(left))
    assert content(directory) == before


def test_a_disk_without_room_leaves_nothing_of_what_could_not_be_begun(
    member: Member, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_room: str
) -> None:
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingError, match=f"cannot be written: {no_room}"):
        run_here(*member.begin)
    assert list((tmp_path / "reports").iterdir()) == []


@pytest.mark.parametrize(
    "member", [one for one in MEMBERS if one.kind is not RUN], indirect=True, ids=lambda member: member.kind.what
)
def test_a_name_that_is_taken_is_refused_and_force_begins_anew(member: Member, left: Path) -> None:
    directory = member.directory(left)
    before, named = content(directory), (member.kind.option, directory.name)
    with pytest.raises(BadInputError, match="exists"):
        run_here(*member.begin, *named)
    with pytest.raises(BadInputError, match="exclude each other"):
        run_here(*member.begin, *named, "--resume", "--force")
    assert content(directory) == before
    with member.kind.held(directory), pytest.raises(BadInputError, match="another process is writing"):
        run_here(*member.begin, *named, "--force")
