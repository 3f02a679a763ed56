"""On a machine that others used, a training with all cores took three times as long as with one, and said nothing."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from meliuscli.training import seeds, waiting
from meliuscli.training.waiting import Scheduled, scheduled, waiting_warning
from meliuscli.work.listener import Listener


def test_the_system_counts_the_work_of_all_threads() -> None:
    before = scheduled()
    if before is None:
        pytest.skip("this system does not count what threads wait")
    end = time.monotonic() + 0.2

    def work() -> None:
        while time.monotonic() < end:
            pass

    other = threading.Thread(target=work)
    other.start()
    began = time.thread_time()
    work()
    ours = time.thread_time() - began
    now = scheduled()
    other.join()
    assert now is not None
    assert now.worked - before.worked >= 0.9 * ours > 0
    assert now.waited >= before.waited


def test_it_is_the_sum_over_threads_and_nothing_where_it_is_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "TASKS", tmp_path)
    assert scheduled() is None
    for name, text in (("1", "2000000000 500000000 7\n"), ("2", "1000000000 4000000000 9\n"), ("3", "")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "schedstat").write_text(text)
    assert scheduled() == Scheduled(worked=3.0, waited=4.5)


@pytest.mark.parametrize(
    ("worked", "waited", "threads", "says"), [(2.0, 6.0, 2, "3.0 times"), (6.0, 2.0, 2, None), (2.0, 6.0, 1, None)]
)
def test_a_warning_names_the_way(worked: float, waited: float, threads: int, says: str | None) -> None:
    warning = waiting_warning(Scheduled(1.0, 1.0), Scheduled(1.0 + worked, 1.0 + waited), threads)
    if says is None:
        assert warning is None
    else:
        assert warning is not None
        assert says in warning
        assert "--threads 1" in warning


def test_a_training_on_its_way_warns_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    class Heard(Listener):
        def talk(self, message: str) -> None:
            said.append(message)

    counted = iter([Scheduled(0.0, 0.0), Scheduled(1.0, 3.0), Scheduled(2.0, 6.0)])
    monkeypatch.setattr(seeds, "scheduled", lambda: next(counted))
    monkeypatch.setattr(seeds, "LOOK_SECONDS", -1.0)
    threads = seeds._Threads(2, Heard())
    for _ in range(3):
        threads.look()
    assert len(said) == 1
