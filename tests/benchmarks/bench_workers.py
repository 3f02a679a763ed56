"""What shared studies cost: workers on a training that sleeps, CPU time of a proposal, opening and reporting a long study.

python tests/benchmarks/bench_workers.py [--trials 48] [--seconds 2] [--proposals 1000] [--recorded 10000]
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "faults"), str(Path(__file__).parents[1])]

from conftest import TINY_SPACE
from optuna.trial import TrialState, create_trial
from servers import SERVERS, why_not
from sleeping import asked_of, created, joined, open_backend, result_of, start

from meliuscli.report.gathered import report_of
from meliuscli.search.claims import OWNER
from meliuscli.search.membership import create_shared
from meliuscli.search.shared import SharedStudy
from meliuscli.work.owner import Owner

MEASURED = 10
"""Proposals that are timed."""


def seconds_of(storage: str, space: Path, place: Path, workers: int, trials: int, seconds: float) -> float:
    """Wall time from the first training's start to the last one's end."""
    study = created(storage, space, place, trials, finalists=0, lag=2 * workers, sampler="random")
    processes = [start(storage, place, seconds) for _ in range(workers)]
    for process in processes:
        process.join()
    done = study._optuna.get_trials(deepcopy=False)
    started = min(trial.datetime_start for trial in done if trial.datetime_start is not None)
    ended = max(trial.datetime_complete for trial in done if trial.datetime_complete is not None)
    return (ended - started).total_seconds()


def throughput(name: str, storage: str, space: Path, home: Path, trials: int, seconds: float, reset: object) -> None:
    taken = {}
    for workers in (1, 4):
        if callable(reset):
            reset()
        count = trials * workers // 4
        taken[workers] = seconds_of(storage, space, home / f"{name}-{workers}", workers, count, seconds) / count
    print(
        f"{name}: 4 workers give {taken[1] / taken[4]:.2f} times the throughput of one ({seconds:g} s a training)",
        flush=True,
    )


def filled(storage: str, home: Path, count: int) -> SharedStudy:
    """A study with ``count`` finished trials of different networks."""
    import numpy as np

    asked = replace(asked_of(Path("meliusnet"), count + 2 * MEASURED, finalists=0), budgets=(5e8,))
    study, _ = create_shared(asked, open_backend(storage, home, create=True), "tiny", home, 1)
    rng, seen, me = np.random.default_rng(0), set(), Owner.here().fields()
    while len(seen) < count:
        candidate = study.space.try_candidate(study.space.random_params(rng))
        if candidate is None or candidate.archid in seen or candidate.ops > study.settings.budget:
            continue
        seen.add(candidate.archid)
        result = result_of(study.proxy_task(candidate))
        study._optuna.add_trial(
            create_trial(
                state=TrialState.COMPLETE,
                params=dict(zip(study.space.axes, candidate.params, strict=True)),
                distributions=study._distributions,
                values=[result.last.validation_top1, candidate.ops],
                user_attrs={"result": result.fields(), OWNER: me},
            )
        )
    return study


def proposal_cpu(study: SharedStudy) -> float:
    """Median CPU seconds of a proposal."""
    me, taken = Owner.here(), []
    study.prepare()
    for turn in range(len(study.known) + MEASURED):
        began = time.process_time()
        job = study.next_job(me)
        if turn >= len(study.known):  # those are asked for first, and nothing is proposed
            taken.append(time.process_time() - began)
        assert job not in (None, "wait")
        study.land(job, me, result_of(job.task).fields())  # type: ignore[union-attr, arg-type]
    return sorted(taken)[MEASURED // 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=48)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--proposals", type=int, default=1000)
    parser.add_argument("--recorded", type=int, default=10_000)
    given = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="bench-workers-"))
    space = home / "tiny.toml"
    space.write_text(TINY_SPACE, encoding="utf-8")
    throughput("journal", "journal", space, home, given.trials, given.seconds, None)
    for kind, make in SERVERS.items():
        if (reason := why_not(kind)) is not None:
            print(f"{kind}: {reason}")
            continue
        with make() as server:
            throughput(kind, server.url, space, home, given.trials, given.seconds, server.reset)
    if given.proposals:
        study = filled("journal", home / "proposals", given.proposals)
        print(f"a proposal at {given.proposals:,} trials: {1000 * proposal_cpu(study):.0f} ms of CPU", flush=True)
    if given.recorded:
        filled("journal", home / "recorded", given.recorded)
        began = time.perf_counter()
        joined("journal", home / "recorded")
        opened = time.perf_counter()
        (home / "reported").symlink_to(home / "recorded")
        report_of("tiny", f"journal:{home / 'recorded' / 'journal.log'}", home)
        ended = time.perf_counter()
        print(
            f"a study of {given.recorded:,} trials opens in {opened - began:.1f} s, reports in {ended - opened:.1f} s"
        )
    shutil.rmtree(home)


if __name__ == "__main__":
    main()
