"""Workers that share a study: the same trials whoever trains them, and what becomes of those whose worker is gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
import sleeping
from conftest import TINY_SPACE, Cli, run_here
from disks import why_no_disk
from killing import kill_this_process
from optuna.trial import TrialState
from servers import FULL, SERVERS, Server, why_not
from sleeping import Row, Sleeper, asked_of, created, joined, open_backend, rows_of, start, work

from meliuscli.errors import BadInputError, FailedError, MissingError
from meliuscli.search import backend, claims, membership, worker
from meliuscli.search.backend import DRIVERS
from meliuscli.search.begin import plan_study
from meliuscli.search.claims import Assignment
from meliuscli.search.membership import join
from meliuscli.search.shared import WAIT, SharedStudy
from meliuscli.search.study import Study
from meliuscli.search.worker import ChildTrainer, Leave, Worker
from meliuscli.training.devices import hold_gpu, visible_gpus
from meliuscli.work.owner import Owner

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
TRIALS = 12


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("space") / "tiny.toml"
    path.write_text(TINY_SPACE)
    return path


@pytest.fixture(scope="module")
def rows(space: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """What a search of one process gives."""
    plan = plan_study(asked_of(space, TRIALS), 1)
    study = Study(tmp_path_factory.mktemp("one"), plan.settings, plan.space)
    assert len(list(study.run(sleeping.OneByOne()))) == TRIALS  # type: ignore[arg-type]
    return rows_of(study)


@pytest.fixture(scope="module")
def servers() -> Iterator[Callable[[str], Server]]:
    """Gives the server of a kind, started when it is first asked for."""
    started: dict[str, Server] = {}
    with ExitStack() as stack:

        def server(kind: str) -> Server:
            if (reason := why_not(kind)) is not None:
                pytest.skip(reason)
            if kind not in started:
                started[kind] = stack.enter_context(SERVERS[kind]())
            return started[kind]

        yield server


@pytest.fixture
def postgres(servers: Callable[[str], Server]) -> Server:
    return servers("postgresql")


OTHERS = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("mysql", "redis", "grpc")]


@pytest.fixture(params=["journal", "postgresql", *OTHERS])
def storage(request: pytest.FixtureRequest, servers: Callable[[str], Server]) -> str:
    """Where a study of its own can be."""
    if request.param == "journal":
        return "journal"
    server = servers(request.param)
    server.reset()
    return server.url


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    sleeping.close_all()


# The same trials


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_any_number_of_workers_gives_the_trials_of_one_process(
    workers: int, storage: str, space: Path, rows: list[Row], tmp_path: Path
) -> None:
    created(storage, space, tmp_path, TRIALS)
    processes = [start(storage, tmp_path, 0.05) for _ in range(workers)]
    assert [process.join(150) or process.exitcode for process in processes] == [0] * workers
    study = joined(storage, tmp_path)
    assert rows_of(study) == rows
    assert study.is_done
    assert study.progress() == "12 of 12 trials, 2 of 2 finals"


def test_the_same_command_makes_one_study_and_another_is_refused(storage: str, space: Path, tmp_path: Path) -> None:
    created(storage, space, tmp_path)
    created(storage, space, tmp_path)
    with pytest.raises(BadInputError, match="trials is 12, not 13"):
        created(storage, space, tmp_path, 13)
    changed = tmp_path / "tiny.toml"
    changed.write_text(TINY_SPACE.replace("learning_rate = 0.05", "learning_rate = 0.06", 1))
    with pytest.raises(BadInputError, match="a recipe in it is another"):
        created(storage, changed, tmp_path)


def test_without_a_lag_proposals_see_all_and_every_trial_is_told_at_once(space: Path, tmp_path: Path) -> None:
    study = created("journal", space, tmp_path, lag=None)
    workers = [Owner.here() for _ in range(3)]
    jobs = [study.next_job(worker) for worker in workers]
    assert all(isinstance(job, Assignment) for job in jobs)
    study.land(jobs[2], workers[2], sleeping.result_of(jobs[2].task).fields())  # type: ignore[union-attr, arg-type]
    study.next_job(workers[2])
    assert [record.number for record in study.records()] == [2]


def test_with_a_lag_a_trial_waits_for_those_before_it(space: Path, tmp_path: Path) -> None:
    study = created("journal", space, tmp_path, lag=2)
    one, other = Owner.here(), Owner.here()
    first, second = study.next_job(one), study.next_job(other)
    study.land(second, other, sleeping.result_of(second.task).fields())  # type: ignore[union-attr, arg-type]
    assert study.next_job(other) == WAIT
    study.land(first, one, sleeping.result_of(first.task).fields())  # type: ignore[union-attr, arg-type]
    assert isinstance(study.next_job(one), Assignment)
    assert study._told_and_flights()[0] == 1


# Workers that end


def test_a_killed_worker_loses_no_trial_and_changes_none(
    storage: str, space: Path, rows: list[Row], tmp_path: Path
) -> None:
    created(storage, space, tmp_path, TRIALS)
    for _ in range(3):
        victim = start(storage, tmp_path, 0.3)
        time.sleep(1.0)
        os.kill(victim.pid or 0, signal.SIGKILL)
        victim.join()
    assert work(storage, tmp_path)
    assert rows_of(joined(storage, tmp_path)) == rows


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_makes_a_worker_hand_back_its_trial_and_leave(
    number: signal.Signals, space: Path, tmp_path: Path
) -> None:
    created("journal", space, tmp_path)
    process = start("journal", tmp_path, 60.0)
    study = joined("journal", tmp_path)
    while not _owners(study):
        time.sleep(0.05)
    os.kill(process.pid or 0, number)
    process.join(10)
    assert process.exitcode == sleeping.HAS_LEFT
    assert _owners(study) == [None]
    job = study.next_job(Owner.here())
    assert isinstance(job, Assignment)
    assert job.number == 0
    assert claims.LOST not in study._journal.frozen(0).user_attrs


def test_what_is_trained_counts_before_it_is_told(space: Path, tmp_path: Path) -> None:
    """A report of a study whose workers had left showed nothing of what their last trainings gave."""
    study, me = created("journal", space, tmp_path), Owner.here()
    job = study.next_job(me)
    study.land(job, me, sleeping.result_of(job.task).fields())  # type: ignore[union-attr, arg-type]
    assert [record.number for record in study.records()] == [0]
    assert study.records()[0].accuracy is not None


def test_a_worker_that_was_not_told_what_it_took_takes_it_again(space: Path, tmp_path: Path) -> None:
    study = created("journal", space, tmp_path)
    me = Owner.here()
    assert study.next_job(me).number == 0  # type: ignore[union-attr]
    # The answer is lost with the connection on which it was on its way.
    job = study.next_job(me)
    assert isinstance(job, Assignment)
    assert job.number == 0
    assert claims.LOST not in study._journal.frozen(0).user_attrs


def lose_turn(study: SharedStudy, lose: Callable[[], object]) -> None:
    """Lose a turn in the middle of it; nothing can be asked for in it any more."""
    before = len(study._optuna.trials)

    def ask() -> None:
        with study.backend.turn("tiny"):
            lose()
            study._journal.ask({})

    with pytest.raises(study.backend.faults):
        ask()
    assert len(study._optuna.trials) == before


@pytest.mark.parametrize("kind", ["postgresql", OTHERS[0]])
def test_in_a_turn_whose_connection_is_cut_no_trial_is_made(
    kind: str, servers: Callable[[str], Server], space: Path, tmp_path: Path
) -> None:
    server = servers(kind)
    server.reset()
    study = created(server.url, space, tmp_path)
    lose_turn(study, server.cut)
    assert isinstance(study.next_job(Owner.here()), Assignment)


@pytest.mark.slow
def test_the_turn_in_redis_of_a_process_that_has_ended_is_given_away(
    servers: Callable[[str], Server], space: Path, tmp_path: Path
) -> None:
    study = created(servers("redis").url, space, tmp_path)
    redis = study.backend._redis  # type: ignore[attr-defined]
    redis.set("meliuscli:tiny:turn", json.dumps(replace(Owner.here(), started=1).fields()))
    lose_turn(study, lambda: redis.set("meliuscli:tiny:turn", json.dumps(Owner.here().fields())))


def _owners(study: SharedStudy) -> list[object]:
    trials = study._optuna.get_trials(deepcopy=False)
    return [trial.user_attrs[claims.OWNER] for trial in trials if claims.OWNER in trial.user_attrs]


def test_the_trial_of_a_far_worker_is_taken_when_it_is_silent(
    storage: str, space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = created(storage, space, tmp_path)
    far = replace(Owner.here(), place="elsewhere")
    assert study.next_job(far).number == 0  # type: ignore[union-attr]
    assert [study.next_job(Owner.here()).number for _ in range(2)] == [1, 2]  # type: ignore[union-attr]
    me = Owner.here()
    monkeypatch.setattr(backend, "GRACE_SECONDS", 1)
    if hasattr(study.backend, "_database"):
        study.backend._database.grace_period = 1
    time.sleep(1.5)
    taken = study.next_job(me)
    assert isinstance(taken, Assignment)
    assert taken.number == 0
    assert study._journal.frozen(0).user_attrs[claims.LOST] == 1
    assert not study.land(taken, far, {"reason": "too late"})


def test_a_candidate_that_ends_two_training_processes_has_failed(space: Path, tmp_path: Path) -> None:
    study = created("journal", space, tmp_path, trials=1)
    one = Worker(study, ChildTrainer(kill_this_process), Leave())  # type: ignore[arg-type]
    job = study.next_job(one.me)
    assert isinstance(job, Assignment)
    one._do(job)
    one._do(study.next_job(one.me))  # type: ignore[arg-type]
    with pytest.raises(FailedError, match=r"killed from outside 2 times \(out of memory\?\)"):
        study.next_job(one.me)
    assert [record.number for record in study.records()] == [0]


def test_a_training_that_takes_too_long_has_failed(space: Path, tmp_path: Path) -> None:
    study = created("journal", space, tmp_path, trials=1, trial_timeout=0.1)
    one = Worker(study, Sleeper(60.0), Leave())
    one._do(study.next_job(one.me))  # type: ignore[arg-type]
    assert study._journal.frozen(0).user_attrs["reason"] == "it took longer than --trial-timeout 0s"


def test_a_worker_leaves_when_its_time_is_over_or_it_has_done_enough(space: Path, tmp_path: Path) -> None:
    study = created("journal", space, tmp_path)
    late = Leave(time.monotonic() + 0.5)
    assert not Worker(study, Sleeper(60.0), late).run()
    assert late.reason == "its time is over"
    few = Worker(study, Sleeper(), Leave(), max_trials=2)
    assert not few.run()
    assert few.num_done == 2


def test_what_a_kill_leaves_in_a_journal_that_others_write_is_mended(
    space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from meliuscli.search import storage as storages

    monkeypatch.setattr(storages, "LOCK_SECONDS", 0.2)
    study = created("journal", space, tmp_path)
    path = tmp_path / "journal.log"
    with path.open("a", encoding="utf-8") as file:
        file.write('{"op_code": 4, "wor')
    path.with_name("journal.log.lock").symlink_to(path)
    path.with_name("journal.log.lock-1.rename").symlink_to(path)
    assert isinstance(study.next_job(Owner.here()), Assignment)
    assert len(joined("journal", tmp_path)._optuna.trials) == 1
    assert not list(tmp_path.glob("*.rename"))
    assert all(line.startswith("{") and line.endswith("}") for line in path.read_text().splitlines())


@pytest.mark.slow
def test_a_database_that_goes_and_comes_back_is_waited_for(
    postgres: Server, space: Path, rows: list[Row], tmp_path: Path
) -> None:
    postgres.reset()
    created(postgres.url, space, tmp_path, TRIALS)
    processes = [start(postgres.url, tmp_path, 0.2) for _ in range(2)]
    time.sleep(1.5)
    postgres.cut()
    time.sleep(0.5)
    postgres.stop("immediate")
    time.sleep(1.0)
    postgres.start()
    assert [process.join(150) or process.exitcode for process in processes] == [0, 0]
    assert rows_of(joined(postgres.url, tmp_path)) == rows


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["grpc-postgresql", "grpc-mysql"])
def test_a_proxy_of_a_database_is_killed_and_its_database_crashes(
    kind: str, servers: Callable[[str], Server], space: Path, rows: list[Row], tmp_path: Path
) -> None:
    server = servers(kind)
    server.reset()
    created(server.url, space, tmp_path, TRIALS)
    victim, other = (start(server.url, tmp_path, 0.2) for _ in range(2))
    time.sleep(1.5)
    server.cut()
    os.kill(victim.pid or 0, signal.SIGKILL)
    victim.join()
    server.stop("immediate")
    time.sleep(1.0)
    server.start()
    assert other.join(150) or other.exitcode == 0
    assert work(server.url, tmp_path)
    assert rows_of(joined(server.url, tmp_path)) == rows


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["postgresql", "redis"])
def test_a_database_whose_disk_is_full_is_waited_for(kind: str, space: Path, rows: list[Row], tmp_path: Path) -> None:
    """Redis ends of it, and is started again when there is room."""
    if (reason := why_not(kind) or why_no_disk()) is not None:
        pytest.skip(reason)
    with SERVERS[kind](has_disk=True) as server:  # type: ignore[call-arg]
        created(server.url, space, tmp_path, TRIALS)
        assert server.disk is not None
        server.disk.leave(0)
        process, deadline = start(server.url, tmp_path, 0.05), time.monotonic() + 60
        while not FULL.search(server.said()):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        server.disk.free()
        time.sleep(0.5)
        server.revive()
        assert process.join(150) or process.exitcode == 0
        assert rows_of(joined(server.url, tmp_path)) == rows


def test_a_worker_calls_a_trial_as_tables_do(space: Path, tmp_path: Path) -> None:
    job = created("journal", space, tmp_path).next_job(Owner.here())
    assert isinstance(job, Assignment)
    assert job.text.startswith("found-0: ")


def test_reading_a_study_writes_nothing(space: Path, tmp_path: Path) -> None:
    created("journal", space, tmp_path, trials=2)
    assert work("journal", tmp_path)
    before = (tmp_path / "journal.log").read_bytes()
    study = joined("journal", tmp_path)
    assert study.is_done
    assert study._outcomes("finals")
    assert (tmp_path / "journal.log").read_bytes() == before


def test_a_journal_with_an_unknown_operation_is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "all.log"
    path.write_text('{"op_code": 99, "worker_id": "a"}\n')
    with pytest.raises(BadInputError, match="corrupt"):
        open_backend(f"journal:{path}", tmp_path)


@pytest.mark.slow
def test_a_worker_that_starts_while_the_database_is_away_waits(postgres: Server, space: Path, tmp_path: Path) -> None:
    postgres.reset()
    created(postgres.url, space, tmp_path, trials=2)
    postgres.stop("immediate")
    process = start(postgres.url, tmp_path, 0.0)
    time.sleep(2.0)
    postgres.start()
    process.join(100)
    assert process.exitcode == 0


def test_a_server_that_refuses_or_is_not_there_is_said_in_one_line(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MissingError, match=r'cannot be reached: .*(database|role) "none" does not exist'):
        open_backend(postgres.url.replace("/postgres", "/none"), tmp_path)
    monkeypatch.setattr(backend, "CONNECT_SECONDS", 0.0)
    with pytest.raises(MissingError, match=r"user:\*\*\*@127\.0\.0\.1:1/x: cannot be reached: .*refused"):
        open_backend("postgresql://user:secret@127.0.0.1:1/x", tmp_path)


def test_a_server_that_is_not_ready_yet_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    said = ["FATAL:  the database system is not yet accepting connections", "connection refused"]

    def connect() -> str:
        if said:
            raise OSError(said.pop())
        return "connected"

    assert backend.reached(connect, "x", (OSError,)) == "connected"


# Who may join


def test_a_worker_of_another_release_or_with_other_data_is_refused(
    space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    created("journal", space, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(membership, "__version__", "9.9")
        with pytest.raises(BadInputError, match=r"was made with meliuscli .*, this is 9\.9"):
            joined("journal", tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(
            membership, "data_facts", lambda *_: {"dataset": {"name": "fashion-mnist-mini", "digest": "other"}}
        )
        with pytest.raises(BadInputError, match=r"was made with other data: made with .* here .*other"):
            joined("journal", tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(membership, "_digest", lambda space: "other")
        with pytest.raises(BadInputError, match="reads another space or recipe"):
            joined("journal", tmp_path)


def test_a_study_that_is_not_there_is_named_and_nothing_is_made(space: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="there is no such journal"):
        join(open_backend("journal", tmp_path / "none"), "tiny", tmp_path / "none")
    assert not (tmp_path / "none").exists()
    created("journal", space, tmp_path)
    with pytest.raises(BadInputError, match="there is no study other") as caught:
        join(open_backend("journal", tmp_path), "other", tmp_path)
    assert "studies there: tiny" in (caught.value.hint or "")


@pytest.mark.slow
def test_sqlite_is_for_one_worker(space: Path, tmp_path: Path, cli: Cli) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    study = created(url, space, tmp_path, trials=2)
    done = cli("worker", "--study", "tiny", "--storage", url)
    assert done.returncode == 2
    assert "another worker holds it, and SQLite is for one" in done.stderr
    assert Worker(study, Sleeper(), Leave()).run()
    assert len(study.records()) == 2
    asked = ("--budget", "1e8", "--study", "tiny", "--storage", url)
    assert "SQLite is for one worker" in cli("search", *asked, "--workers", "2").stderr


def test_a_missing_driver_is_said_with_the_line_that_installs_it(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules.update(psycopg=None, pymysql=None, redis=None, grpc=None)\n"
        "from pathlib import Path\nfrom meliuscli.errors import MissingError\n"
        "from meliuscli.search.addresses import open_backend\n"
        "for url in ('postgresql://a@b/c', 'mysql://a@b/c', 'redis://a', 'grpc://a'):\n"
        "    try: open_backend(url, Path())\n    except MissingError as error: print(error.hint)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [f"pip install 'meliuscli[{e}]'" for e in DRIVERS.values()]


# What others read


def test_optuna_reads_the_study_as_it_is(space: Path, tmp_path: Path, rows: list[Row]) -> None:
    created("journal", space, tmp_path, TRIALS)
    assert work("journal", tmp_path)
    path = tmp_path / "journal.log"
    optuna_cli = Path(sys.executable).with_name("optuna")
    if not optuna_cli.exists():
        pytest.skip("Optuna's command line is not beside this Python")
    command = [str(optuna_cli), "trials", "--study-name", "tiny", "--storage", str(path), "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.count('"number"') == TRIALS
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    study = optuna.load_study(study_name="tiny", storage=storage)
    assert [trial.values[0] for trial in study.trials] == [accuracy for _, _, accuracy, _ in rows]
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE}


# GPUs (on a list of devices that nobody has to have)


def test_each_worker_takes_a_free_gpu_and_shares_one_where_it_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-8f2a")
    gpus = visible_gpus(2)
    assert gpus == ["4", "GPU-8f2a"]
    held = [hold_gpu(gpus, 2, tmp_path) for _ in range(4)]
    assert [one.name for one in held] == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    with pytest.raises(MissingError, match="has 2 workers already"):
        hold_gpu(gpus, 2, tmp_path)
    held[1].release()
    with pytest.raises(MissingError, match="cuda:0 of this machine"):
        hold_gpu(gpus, 2, tmp_path, wanted=0)
    held.append(hold_gpu(["GPU-8f2a", "7"], 2, tmp_path))  # as another process sees them
    held.append(hold_gpu(["GPU-8f2a", "7"], 2, tmp_path))
    assert [one.name for one in held[4:]] == ["cuda:0", "cuda:1"]
    with pytest.raises(BadInputError, match="cuda:2: there are 2"):
        hold_gpu(gpus, 2, tmp_path, wanted=2)


def test_without_visible_devices_gpus_are_numbered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus(3) == ["0", "1", "2"]


# The command line


@pytest.mark.slow
def test_search_shares_a_study_and_the_report_is_gathered_anywhere(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiny.toml").write_text(TINY_SPACE)
    asked = (
        "search",
        "--budget",
        "1e8",
        "--space",
        "tiny.toml",
        "--trials",
        "2",
        "--finalists",
        "1",
        "--final-seeds",
        "1",
    )
    shared_by = ("--study", "night", "--storage", "journal:all.log")
    done = cli(*asked, *shared_by, "--lag", "none", "--trial-timeout", "5m")
    assert done.returncode == 0, done.stderr
    assert "this search is not repeatable" in (tmp_path / "reports" / "night" / "report.md").read_text()
    monkeypatch.chdir(tmp_path)
    run_here("report", "study:night", "--storage", "journal:all.log", "--reports", "elsewhere", "--format", "csv")
    assert capsys.readouterr().out == (tmp_path / "reports" / "night" / "front.csv").read_text()
    run_here("worker", *shared_by)
    assert capsys.readouterr().out == "night: 0 trainings by this worker; it leaves: the study is done\n"
    run_here("show", "study:night")
    assert "worker --study night --storage journal:all.log" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--study", "s", "--storage", "journal:a.log", "--timeout", "1m"), "--timeout and --storage exclude"),
        (("--storage", "journal:a.log"), "the study needs a name"),
        (("--study", "s", "--storage", "grpc://host:x"), "Port could not be cast"),
        (("--study", "s", "--storage", "oracle://host"), "unknown kind 'oracle'"),
        (("--study", "s", "--storage", "journal:a.log", "--objectives", "accuracy,latency"), "those of one machine"),
        (("--study", "s", "--trial-timeout", "1m"), "for studies that workers share"),
        (("--lag", "0"), "a number from 1 on, or none"),
    ],
)
def test_what_a_shared_search_cannot_be_is_refused(
    words: tuple[str, ...], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInputError, match=says):
        run_here("search", "--budget", "5ms" if "accuracy,latency" in words else "1e8", *words)


def test_a_storage_that_stays_away_is_given_up(space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "PATIENCE_SECONDS", 0.3)
    study = created("journal", space, tmp_path)

    def fail() -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(MissingError, match=r"did not answer for 1s: .*No space left"):
        worker.patiently(fail, study.backend)
