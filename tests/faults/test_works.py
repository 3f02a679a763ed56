"""A round of the campaign for each kind of long work, and each fault of its disk and its streams: it ends as if undisturbed."""

from __future__ import annotations

import random
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from commands import STREAMS, Outcome, attack_disks, finish, undisturbed_files
from disks import Disk, Quota, why_no_disk
from test_long_work import MEMBERS, Member, write_files
from warm import in_child
from works import ROOM, Round

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")]


@dataclass(frozen=True)
class Undisturbed:
    """A work that was done: where, what came of it, and how long it took."""

    member: Member
    files: Path
    place: Path
    result: object
    seconds: float


@pytest.fixture(scope="module", params=MEMBERS, ids=lambda member: member.kind.what)
def work(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    member: Member = request.param
    files, place = (tmp_path_factory.mktemp(name) for name in ("files", "whole"))
    in_child(lambda: write_files(files))
    shutil.copytree(files, place, dirs_exist_ok=True)
    began = time.monotonic()
    assert finish(place, member.begin) == 0
    seconds = time.monotonic() - began
    return Undisturbed(member, files, place, in_child(lambda: member.result(place)), seconds)


@pytest.mark.parametrize("kind", ["quota", "full /tmp", "streams"])
def test_a_disturbed_work_goes_on_to_what_it_is_undisturbed(kind: str, work: Undisturbed, tmp_path: Path) -> None:
    if kind in ROOM and (reason := why_no_disk(ROOM[kind])) is not None:
        pytest.skip(reason)
    place, outcome = tmp_path / "work", Outcome()
    shutil.copytree(work.files, place)
    Round(work.member, place, work.seconds, random.Random(kind), outcome).run(kind, work.result)
    assert outcome.failures == []
    assert outcome.faults.total() >= 1


RUN = pytest.mark.parametrize("work", MEMBERS[:1], indirect=True, ids=["run"])


@RUN
@pytest.mark.parametrize("kind", STREAMS)
def test_a_run_is_done_whatever_becomes_of_its_streams(kind: str, work: Undisturbed, tmp_path: Path) -> None:
    test_a_disturbed_work_goes_on_to_what_it_is_undisturbed(kind, work, tmp_path)


@RUN
@pytest.mark.parametrize("kind", [Disk, Quota], ids=lambda kind: kind.kind)
def test_a_file_without_room_is_written_whole_or_not_at_all(kind: type[Disk], work: Undisturbed) -> None:
    if (reason := why_no_disk(kind)) is not None:
        pytest.skip(reason)
    outcome = Outcome()
    expected, _ = undisturbed_files(work.place, outcome)
    attack_disks(random.Random(0), time.monotonic() + 15, work.place, expected, kind, outcome)
    assert outcome.failures == []
    assert outcome.faults.total() >= 1
