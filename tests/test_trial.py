"""Proxies on trial: what is judged, by what, and what is never claimed."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from meliuscli.arch.adapt import as_proxy
from meliuscli.evidence.belief import left_out
from meliuscli.nn.build import build
from meliuscli.report.trial import trial_sentences
from meliuscli.search.check import Check, DataFacts
from meliuscli.search.plan import Changes, changed, make_plan
from meliuscli.search.space import load_space
from meliuscli.search.target_trust import beyond_free, chance_of_best, judge_on_target, left_of
from meliuscli.search.targets import published_networks, target_name, topologies
from meliuscli.search.trial import SCORES, TrialRow, measured_trust, trial_rows
from meliuscli.training.zero_cost import ZERO_COST

ROOT = Path(__file__).parents[1]
TRUTH = np.array([run.top1 for run in topologies()])


def unexplained() -> np.ndarray:
    found = left_out()
    errors = {(run.arch, run.stem): -error for run, error in zip(found.runs, found.errors, strict=True)}
    return np.array([errors[run.arch, run.stem] for run in topologies()])


def test_the_topologies_are_those_with_published_results_and_the_better_stem() -> None:
    assert [target_name(candidate) for candidate in published_networks()] == [run.arch for run in topologies()]
    assert len(topologies()) == 11
    assert {run.stem for run in topologies()} == {"grouped"}


def test_every_published_topology_can_be_narrowed_and_built() -> None:
    for candidate in published_networks():
        small = as_proxy(candidate.spec, 10, 1, 8, 8)
        assert sum(p.numel() for p in build(small).parameters()) < candidate.count.params / 20


def test_nothing_is_left_of_a_function_of_the_controls() -> None:
    controls = np.random.default_rng(0).normal(size=(11, 2))
    assert not left_of(controls @ [2.0, -3.0] + 5, controls).any()


def test_a_score_of_the_free_numbers_alone_is_not_shown_to_add() -> None:
    logs = np.log([candidate.ops for candidate in published_networks()])
    trust = judge_on_target(logs, 0)
    assert np.isnan(trust.given_ops)
    assert not trust.adds


def test_a_score_that_knows_what_beliefs_leave_takes_their_error_down() -> None:
    trust = judge_on_target(unexplained(), 0)
    assert trust.error < trust.free_error
    assert trust.weight > 0.2
    assert chance_of_best([unexplained()], 0) < 0.05


def test_a_constant_score_has_no_weight_and_missing_ones_are_left_out() -> None:
    assert not beyond_free(np.ones(11)).any()
    some = np.where(np.arange(11) < 6, TRUTH, np.nan)
    assert judge_on_target(some, 0).n == 6
    assert not beyond_free(some)[6:].any()
    assert judge_on_target(np.full(11, np.nan), 0).n == 0


def test_a_proxy_that_ended_at_chance_is_not_judged() -> None:
    trust = judge_on_target(TRUTH, 0)
    row = TrialRow("x: accuracy", "trained", "x", TRUTH, trust, num_at_chance=6)
    assert not row.is_judged
    assert TrialRow("x: accuracy", "trained", "x", TRUTH, trust, num_at_chance=1).is_judged


@pytest.mark.parametrize(("against", "seeds"), [("long", (5, 8, 9)), ("published", (5, 6, 7))])
def test_several_seeds_are_never_those_of_the_long_training(against: str, seeds: tuple[int, ...]) -> None:
    changes = Changes(proxies={"three": {"seeds": 3}})
    plan = make_plan("meliusnet", load_space("meliusnet")[1], changes, seed=5, against=against)  # type: ignore[arg-type]
    assert plan.seeds_of("three") == seeds
    assert ("long" in plan.ways) is (against == "long")
    if against == "long":
        assert not set(seeds) & set(plan.long_seeds)


def test_the_committed_trial_knows_its_ways_by_all_that_changes_a_score() -> None:
    proxy = load_space("meliusnet")[1].proxy
    trust = measured_trust(proxy)
    assert trust is not None
    assert trust.n == 11
    assert measured_trust(changed(proxy, {"seeds": 3}, "x")) == trust
    assert measured_trust(changed(proxy, {"recipe": {"learning_rate": 0.02}}, "x")) is None


def test_the_projects_scores_are_those_of_the_committed_report() -> None:
    """Of trainings; where one way is there with one seed and with three, those of three."""
    report = ROOT / "reports/proxy-imagenet/scores.csv"
    with report.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["score"] in SCORES and row["proxy"] != "proxy"]
    with (ROOT / "meliuscli/evidence/proxies.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == rows
    assert len(rows) == 11 * 3 * 11


def check_of(done: int) -> Check:
    """Of two ways that differ in their length; the first ``done`` networks are trained."""
    changes = Changes(proxies={"longer": {"recipe": {"epochs": 1.4}}})
    plan = make_plan("meliusnet", load_space("meliusnet")[1], changes, against="published")
    scores = np.random.default_rng(0).normal(size=(len(TRUTH), len(ZERO_COST)))
    trainings = {
        way: {
            candidate.archid: {
                "0": {
                    "validation_top1": 0.6 + accuracy / 10,
                    "validation_loss": 1.0 + accuracy,
                    "train_loss": 1.2,
                    "seconds": 2.0,
                    "untrained": dict(zip(ZERO_COST, row.tolist(), strict=True)),
                }
            }
            for candidate, row, accuracy in zip(published_networks()[:done], scores, offsets, strict=False)
        }
        for way, offsets in (("proxy", scores[:, 0]), ("longer", scores[:, 1]))
    }
    data = {"fashion-mnist-mini": DataFacts(10, 1, 5000, "0")}
    return Check(Path("check"), plan, data, tuple(published_networks()), {"command": "", "time": ""}, trainings)


def test_scores_of_untrained_networks_that_are_the_same_are_one_score() -> None:
    names = [row.name for row in trial_rows(check_of(11)) if row.kind == "untrained"]
    assert names == [f"proxy: {name}" for name in ZERO_COST]


@pytest.mark.parametrize("done", [9, 11])
def test_what_is_said_of_many_scores_says_how_many_there_are(done: int) -> None:
    """With some networks left no score is whole, and the permutations say nothing: a share was given as nan %."""
    check = check_of(done)
    said = trial_sentences(check, trial_rows(check))
    assert not any("nan" in sentence.split() for sentence in said)
    assert any("10 scores are many" in sentence for sentence in said) is (done == 11)
