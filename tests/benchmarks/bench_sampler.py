"""How fast the samplers of ``meliuscli search`` find a Pareto front: ours beside Optuna's, all behind the same filter.

    python tests/benchmarks/bench_sampler.py [--instances 20] [--first 100] [--results FILE]   on calibrated problems
    python tests/benchmarks/bench_sampler.py --tabulate TABLE [--networks 96] [--training-seeds 1] [--workers 2]
    python tests/benchmarks/bench_sampler.py --table TABLE [--instances 20]                    on real trainings

Every searcher trains the known networks first, and one network at a time. The front is chosen from what was measured, and
the area under it is computed from true accuracies. ``--results`` keeps finished instances, so a run can be continued.
GPSampler needs about a second a proposal, so it runs on ``--gp-instances`` instances, for 50 trainings.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.samplers import TPESampler
from optuna.trial import TrialState
from problem import Calibrated, CountedSpace, Problem, Tabulated

from meliuscli.results import write_json
from meliuscli.search.cost import OPS
from meliuscli.search.limits import Limit
from meliuscli.search.objective import proxy_task
from meliuscli.search.pareto import front, hypervolume
from meliuscli.search.proposals import SPREAD_STARTS
from meliuscli.search.sampler import CandidateSampler, FeasibleAndNew, distributions, make_sampler, suggest
from meliuscli.search.space import Candidate, SearchSpace, load_space
from meliuscli.search.trainings import Failure, Trainings, train_all

MARKS = (25, 50, 100)
OURS = "cost-aware"
OTHERS = ("random", "nsga2", "tpe", "tpe multivariate")
GP_TRAININGS = 50
DRAWN = 4000

Row = dict[str, float]


def searcher(name: str, space: SearchSpace, budget: float, seed: int) -> CandidateSampler:
    """A sampler as ``meliuscli search`` makes it, and TPE's multivariate form."""
    if name != "tpe multivariate":
        return make_sampler(name, space, budget, seed)  # type: ignore[arg-type]
    limit = Limit("--budget", OPS.of, budget, OPS.text)
    starts = SPREAD_STARTS + sum(limit.holds(candidate) for _, candidate in space.known_candidates())

    def make(seed: int) -> TPESampler:
        return TPESampler(seed=seed, n_startup_trials=starts, multivariate=True)

    return FeasibleAndNew(make, space, (limit,), seed=seed)


def run(problem: Problem, name: str, budget: float, known: Sequence[Candidate], trainings: int, seed: int) -> Row:
    """One search; areas after each of ``MARKS``, and milliseconds of CPU of a proposal among the last 20."""
    space, parameters = problem.space, distributions(problem.space)
    sampler = searcher(name, space, budget, seed)
    trained: list[Candidate] = []
    done: list[optuna.trial.FrozenTrial] = []
    row, seconds = Row(), list[float]()
    while len(trained) < trainings:
        study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
        study.add_trials(done)
        if len(trained) < len(known):
            candidate: Candidate | None = known[len(trained)]
            study.enqueue_trial(dict(zip(space.axes, known[len(trained)].params, strict=True)))
        began = time.process_time()
        trial = study.ask(parameters)
        if len(trained) >= len(known):
            seconds.append(time.process_time() - began)
            candidate = problem.stands_for(suggest(trial, space), {c.archid for c in trained})
        if candidate is None:
            break
        trained.append(candidate)
        done.append(_told(problem, candidate, study.get_trials()[-1], parameters))
        if len(trained) in MARKS:
            row[str(len(trained))] = area(problem, trained, budget)
    row["best"] = max(problem.true(candidate) for candidate in trained)
    row["ms"] = 1e3 * statistics.median(seconds[-20:])
    return row


def _told(
    problem: Problem, candidate: Candidate, asked: optuna.trial.FrozenTrial, parameters: dict[str, Any]
) -> optuna.trial.FrozenTrial:
    """The finished trial of the network that was trained; what the sampler noted of it (its generation) stays."""
    noted = {key: value for key, value in asked.system_attrs.items() if key != "fixed_params"}
    return optuna.trial.create_trial(
        state=TrialState.COMPLETE,
        values=[problem.measured(candidate) / 100, candidate.ops],
        params=dict(zip(problem.space.axes, candidate.params, strict=True)),
        distributions=parameters,
        system_attrs=noted,
    )


def area(problem: Problem, trained: Sequence[Candidate], budget: float) -> float:
    """The true area under the front that was chosen from measured accuracies, in parts of all there is."""
    chosen = [trained[i] for i in front([(candidate.ops, problem.measured(candidate)) for candidate in trained])]
    points = [(candidate.ops, problem.true(candidate)) for candidate in chosen]
    return hypervolume(points, budget, problem.floor) / (budget * problem.height)


def race(
    problem_of: Callable[[int], Problem], budget: float, known: Sequence[Candidate], arguments: argparse.Namespace
) -> dict[str, dict[str, Row]]:
    """Every searcher on every instance: searcher -> instance -> row."""
    path: Path | None = arguments.results
    results: dict[str, dict[str, Row]] = json.loads(path.read_text()) if path and path.exists() else {}
    for index in range(arguments.instances):
        seed = arguments.first + index
        names = [OURS, *OTHERS, *(["gp"] if index < arguments.gp_instances else [])]
        for name in names:
            if str(seed) in results.setdefault(name, {}):
                continue
            trainings = min(GP_TRAININGS, arguments.trainings) if name == "gp" else arguments.trainings
            results[name][str(seed)] = run(problem_of(seed), name, budget, known, trainings, seed)
            print(f"{name}, instance {seed}: {results[name][str(seed)]}", flush=True)
            if path:
                write_json(path, results)
    return results


def table(results: dict[str, dict[str, Row]]) -> str:
    """Medians by searcher, and how often ours is above each on the same instance."""
    head = "| searcher | instances | area at 25 | area at 50 | area at 100 | best true % | ms a proposal |"
    lines = [head, "|" + "---|" * 7]
    for name, rows in results.items():
        cells = [_median(rows, key) for key in (*map(str, MARKS), "best", "ms")]
        texts = [f"{value:.{digits}f}" if value else "" for value, digits in zip(cells, (3, 3, 3, 1, 0), strict=True)]
        lines.append(f"| {name} | {len(rows)} | {' | '.join(texts)} |")
    lines += [
        "",
        "| ours against | at | ratio of medians | median of ratios | ours is larger | p (sign test) |",
        "|" + "---|" * 6,
    ]
    lines += [_comparison(results, name, str(mark)) for name in results if name != OURS for mark in MARKS]
    return "\n".join(line for line in lines if line is not None)


def _median(rows: dict[str, Row], key: str) -> float | None:
    values = [row[key] for row in rows.values() if key in row]
    return statistics.median(values) if values else None


def _comparison(results: dict[str, dict[str, Row]], name: str, mark: str) -> str | None:
    shared = [seed for seed, row in results[name].items() if mark in row and mark in results[OURS].get(seed, {})]
    if not shared:
        return None
    ours, theirs = ([results[who][seed][mark] for seed in shared] for who in (OURS, name))
    ratio = statistics.median(ours) / statistics.median(theirs)
    each = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    larger = sum(a > b for a, b in zip(ours, theirs, strict=True))
    different = sum(a != b for a, b in zip(ours, theirs, strict=True))
    return f"| {name} | {mark} | {ratio:.3f} | {each:.3f} | {larger} of {len(shared)} | {sign_test(larger, different):.2g} |"


def sign_test(larger: int, count: int) -> float:
    """The probability of so uneven a split or a more uneven one, if both were equally likely; two-sided."""
    tail = sum(comb(count, k) for k in range(max(larger, count - larger), count + 1)) / 2**count
    return min(1.0, 2 * tail)


def tabulate(path: Path, space: SearchSpace, budget: float, arguments: argparse.Namespace) -> None:
    """Train networks spread over log OPs with the space's proxy; every training is written down as it ends."""
    networks = {c.archid: c for c in spread(space, budget, arguments.networks)}
    stored = json.loads(path.read_text()) if path.exists() else {"space": arguments.space, "networks": []}
    rows: dict[str, dict[str, Any]] = {row["archid"]: row for row in stored["networks"]}
    for archid, candidate in networks.items():
        rows.setdefault(archid, {"archid": archid, "params": candidate.params, "ops": candidate.ops, "top1": {}})
    tasks = {
        (archid, seed): proxy_task(candidate.spec, space, None, seed)
        for seed in range(arguments.training_seeds)
        for archid, candidate in networks.items()
        if str(seed) not in rows[archid]["top1"]
    }
    done = len(networks) * arguments.training_seeds - len(tasks)
    with Trainings[tuple[str, int]](arguments.workers) as trainings:
        for (archid, seed), outcome in train_all(tasks, trainings):
            if isinstance(outcome, Failure):
                raise SystemExit(f"{archid}, seed {seed}: {outcome.reason}")
            done += 1
            rows[archid]["top1"][str(seed)] = outcome.last.validation_top1
            complete = [row for row in rows.values() if row["top1"]]
            write_json(path, {"space": arguments.space, "networks": complete})
            print(f"{done} of {len(networks) * arguments.training_seeds}: {archid} {rows[archid]['top1']}", flush=True)


def spread(space: SearchSpace, budget: float, count: int) -> list[Candidate]:
    """The known networks within the budget, and random ones in equal numbers from eight equal parts of log OPs, as far as
    ``DRAWN`` random ones have them; always the same."""
    rng = np.random.default_rng(0)
    chosen = {c.archid: c for _, c in space.known_candidates() if c.ops <= budget}
    edges = np.linspace(np.log(space.smallest.ops), np.log(budget), 9)[1:-1]
    parts: list[list[Candidate]] = [[] for _ in range(8)]
    for _ in range(DRAWN):
        candidate = space.try_candidate(space.random_params(rng))
        if candidate is not None and candidate.ops <= budget:
            parts[int(np.searchsorted(edges, np.log(candidate.ops)))].append(candidate)
    while len(chosen) < count and any(parts):
        for candidate in [part.pop() for part in parts if part]:
            if len(chosen) < count:
                chosen.setdefault(candidate.archid, candidate)
    return list(chosen.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="meliusnet")
    parser.add_argument("--budget", type=float, default=5e8)
    parser.add_argument("--instances", type=int, default=20)
    parser.add_argument(
        "--first", type=int, default=100, help="seed of the first instance; those below 100 were tuned on"
    )
    parser.add_argument("--gp-instances", type=int, default=10)
    parser.add_argument("--trainings", type=int, default=100)
    parser.add_argument("--results", type=Path)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--tabulate", type=Path)
    parser.add_argument("--networks", type=int, default=96)
    parser.add_argument("--training-seeds", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    space = CountedSpace.model_validate(load_space(arguments.space)[1].model_dump())
    known = [candidate for _, candidate in space.known_candidates() if candidate.ops <= arguments.budget]
    if arguments.tabulate:
        tabulate(arguments.tabulate, space, arguments.budget, arguments)
    elif arguments.table:
        known = [c for c in Tabulated(space, arguments.table, 0).candidates if c.archid in {k.archid for k in known}]
        print(table(race(lambda seed: Tabulated(space, arguments.table, seed), arguments.budget, known, arguments)))
    else:
        print(table(race(lambda seed: Calibrated(space, seed), arguments.budget, known, arguments)))


if __name__ == "__main__":
    main()
