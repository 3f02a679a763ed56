"""Beliefs about ImageNet: the evidence is data with a source, the model is judged by what it had not seen."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Cli
from hypothesis import given, settings
from hypothesis import strategies as st

from meliuscli.arch.published import published_for
from meliuscli.arch.zoo import load_arch, load_changed, load_name
from meliuscli.counting.analytic import count_spec
from meliuscli.counting.conventions import MELIUS
from meliuscli.errors import BadInputError
from meliuscli.evidence.belief import (
    LEVEL,
    WIDTH,
    Belief,
    believe,
    inputs_of,
    known_result,
    left_out,
    outside,
    probabilities_above,
    results,
    target_model,
    target_models,
)
from meliuscli.evidence.features import features
from meliuscli.evidence.model import OUTSIDE, TargetModel
from meliuscli.evidence.runs import SOURCE, target_runs
from meliuscli.search.space import Candidate, load_space
from meliuscli.search.trust import kendall_tau, tau_given_ops

CURVES = Path(__file__).parents[2] / "shared" / "facts" / "imagenet_runs.csv"


def test_every_run_is_near_what_its_authors_publish() -> None:
    for run in target_runs():
        published = [float(row.top1) for row in published_for(run.spec) if row.source == SOURCE and row.top1]
        assert min(abs(run.best_top1 - value) for value in published) < 0.2, run.arch
        assert run.top1 <= run.best_top1 < run.top1 + 0.35


def test_runs_are_the_last_epochs_of_the_authors_curves() -> None:
    if not CURVES.exists():
        pytest.skip("the authors' curves are not part of the project")
    last: dict[tuple[str, str], tuple[int, float]] = {}
    with CURVES.open() as file:
        for row in csv.DictReader(file):
            key = row["arch"], row["stem"]
            last[key] = max(last.get(key, (0, 0.0)), (int(row["epoch"]), float(row["top1"])))
    assert {(run.arch, run.stem): (run.epochs, run.top1) for run in target_runs()} == last


def test_a_topology_that_was_left_out_is_predicted_as_well_as_promised() -> None:
    checked = left_out()
    beliefs = np.array([belief.top1 for belief in checked.beliefs])
    ops = np.array([MELIUS.derive(count_spec(run.spec).total).ops for run in checked.runs], float)
    meliusnets = np.array([run.spec.family == "meliusnet" for run in checked.runs])
    assert checked.error <= 0.71
    assert float(kendall_tau(beliefs, results())) >= 0.82
    assert float(tau_given_ops(beliefs, results(), ops)) >= 0.74
    assert math.sqrt((checked.errors[meliusnets] ** 2).mean()) < 0.8


def test_intervals_cover_what_was_left_out_the_farthest_too() -> None:
    checked = left_out()
    assert 0.8 <= checked.coverage <= 1
    by_name = {(run.arch, run.stem): (run, belief) for run, belief in zip(checked.runs, checked.beliefs, strict=True)}
    for name in (("meliusnet59", "grouped"), ("resnete18", "imagenet"), ("resnete18", "grouped")):
        run, belief = by_name[name]
        assert belief.low <= run.top1 <= belief.high
        assert belief.deviation > by_name[("meliusnet29", "grouped")][1].deviation
    near = [belief.low <= run.top1 <= belief.high for run, belief in by_name.values() if belief.deviation < 1]
    assert (sum(near), len(near)) == (5, 6), "docs/results/beliefs.md says it"


def test_leaving_out_fits_nothing_on_what_is_left_out() -> None:
    """The same figures by a road of its own: the rows of a topology are deleted before anything is computed."""
    runs = target_runs()
    kept = [run for run in runs if run.arch != "meliusnet42"]
    model = TargetModel.fit(inputs_of([run.spec for run in kept]), np.array([run.top1 for run in kept]))
    mean, _ = model.predict(inputs_of([load_name("meliusnet42")]))
    index = next(i for i, run in enumerate(runs) if run.arch == "meliusnet42")
    assert left_out().beliefs[index].top1 == pytest.approx(float(mean[0]), abs=1e-9)


def test_many_params_at_equal_ops_do_not_look_certain() -> None:
    """The network that a plain regression takes for the best at 199M OPs has four times the params of any run there, and
    transitions of nine to one."""
    spec = load_arch("meliusnet22", ("num_blocks=[3,4,18,10]", "growth_rate=96", "groups=8", "stem_channels=32")).spec
    with pytest.raises(BadInputError, match="strongest compression"):
        believe([spec.replace(transition_channels=(64, 160, 192))])
    milder = believe([spec.replace(transition_channels=(128, 256, 512), growth_rate=64, stem_channels=64)])[0]
    near = believe([load_name("meliusnet29")])[0]
    assert milder.high - milder.low > 4 * (near.high - near.low)


def test_no_network_with_more_params_an_op_than_any_run_looks_certain() -> None:
    """Random networks of the default space, all that have 1.4 times the params per OP of the MeliusNet that has the most: other
    numbers that are new in them widen their intervals. ``explain beliefs`` says the 2.9 points."""
    space, rng, networks = load_space("meliusnet")[1], np.random.default_rng(0), list[Candidate]()
    while len(networks) < 1500:
        candidate = space.try_candidate(space.random_params(rng))
        if candidate is not None and candidate.ops <= 5.4e8:
            networks.append(candidate)
    totals = [count_spec(run.spec).total for run in target_runs() if run.spec.family == "meliusnet"]
    most = max(total.params / float(MELIUS.derive(total).ops or 0) for total in totals)
    heavy = [network.spec for network in networks if network.count.params / network.ops > 1.4 * most]
    assert len(heavy) > 100
    assert all(outside(spec) for spec in heavy)
    deviations = target_model().predict(inputs_of(heavy))[1]
    assert 1.645 * deviations.min() == pytest.approx(2.9, abs=0.05)


@pytest.mark.parametrize(
    ("smaller", "larger"),
    [
        ({"stem_channels": 32}, {"stem_channels": 64}),
        ({"growth_rate": 48}, {"growth_rate": 64}),
        ({"growth_rate": 64}, {"growth_rate": 80}),
        ({"groups": 4}, {"groups": 1}),
        *(({}, {"num_blocks": stage}) for stage in range(4)),
    ],
)
def test_a_network_is_not_believed_better_than_one_that_contains_it(
    smaller: dict[str, Any], larger: dict[str, Any]
) -> None:
    """All else equal, fewer channels in the stem, fewer blocks and sparser transitions do not help."""
    for run in target_runs():
        if run.spec.family != "meliusnet" or run.stem != "grouped":
            continue
        more = dict(larger)
        if "num_blocks" in more:
            stage = more["num_blocks"]
            more["num_blocks"] = [n + (i == stage) for i, n in enumerate(run.spec.num_blocks)]  # type: ignore[attr-defined]
        specs = [run.spec.replace(**_tupled(changes)) for changes in (smaller, more)]
        (few, many), _ = target_model().predict(inputs_of(specs))
        assert many >= few, (run.arch, smaller, larger)


def _tupled(changes: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in changes.items()}


def test_doubt_is_about_the_range_of_the_own_family() -> None:
    """ResNetE's wide convolutions say nothing of a MeliusNet whose growth rate no one measured."""
    usual, wide, thin = believe(
        [load_changed("meliusnet29", change).spec for change in ({}, {"growth_rate": 96}, {"stem_channels": 32})]
    )
    assert min(wide.deviation, thin.deviation) > 3 * usual.deviation
    for name in ("meliusnet29", "binarydensenet28"):
        assert "channels of the stem" in outside(load_changed(name, {"stem_channels": 32}).spec)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6))
def test_doubt_grows_with_the_distance_from_what_was_measured(step: int, more: int) -> None:
    inputs = inputs_of([load_name("meliusnet29")])
    model = target_model()
    deviations = []
    for distance in (step, step + more):
        inputs_far = inputs_of([load_name("meliusnet29")])
        inputs_far.features[:, 2] += distance
        deviations.append(float(model.predict(inputs_far)[1][0]))
    assert float(model.predict(inputs)[1][0]) < deviations[0] < deviations[1]


def test_a_belief_is_a_normal_distribution() -> None:
    belief = Belief(66.0, 1.0)
    assert belief.probability_above(66.0) == pytest.approx(0.5)
    assert belief.probability_above(belief.low) - belief.probability_above(belief.high) == pytest.approx(LEVEL)


def test_features_do_not_depend_on_the_order_of_networks() -> None:
    specs = [load_name(name) for name in ("meliusnet22", "resnete18", "binarydensenet28")]
    assert np.array_equal(features(specs)[::-1], features(specs[::-1]))


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("reactnet-a", (), "not of reactnet"),
        ("meliusnet22", ("num_classes=10",), "num_classes = 1000"),
        ("meliusnet22", ("input_size=160",), "input_size = 224"),
        ("meliusnet22", ("stem=thumbnail",), "not of thumbnail"),
        ("binarydensenet37-dilated", (), "dilation"),
    ],
)
def test_outside_of_the_evidence_nothing_is_believed(name: str, changes: tuple[str, ...], reason: str) -> None:
    with pytest.raises(BadInputError, match=reason):
        believe([load_arch(name, changes).spec])


def test_known_results_are_of_exactly_this_network() -> None:
    assert known_result(load_name("meliusnet-b")) == 65.49
    assert known_result(load_arch("meliusnet-b", ("growth_rate=48",)).spec) is None


def test_predict_says_its_belief_and_its_error(cli: Cli) -> None:
    out = json.loads(cli("predict", "meliusnet29", "--format", "json").stdout)
    network = out["networks"][0]
    assert network["believed_low"] < network["reached_top1"] < network["believed_high"]
    assert "leave-one-topology-out error 0.6 points on 17 runs" in out["evidence"]


def test_predict_refuses_by_the_name_that_the_user_gave(cli: Cli) -> None:
    refused = cli("predict", "reactnet-a")
    assert refused.returncode == 2
    assert "reactnet-a" in refused.stderr


def test_no_interval_is_below_nothing_or_above_everything() -> None:
    belief = Belief(85.0, 20.0)
    assert (belief.low, belief.high) == (pytest.approx(85 - 20 * WIDTH), 100.0)
    assert Belief(5.0, 20.0).low == 0.0


@pytest.mark.parametrize("change", [{"growth_rate": 2048}, {"num_blocks": [40, 40, 40, 40]}, {"stem_channels": 4096}])
def test_too_far_from_what_was_measured_nothing_is_said(change: dict[str, Any]) -> None:
    spec = load_changed("meliusnet22", change).spec
    with pytest.raises(BadInputError, match="too far from what was measured, in "):
        believe([spec])


def test_what_lies_outside_the_runs_is_named() -> None:
    for run in target_runs():
        assert outside(run.spec) == ()
    assert outside(load_changed("meliusnet22", {"growth_rate": 512}).spec)[:3] == (
        "binary MACs",
        "float MACs",
        "params",
    )


def test_probabilities_span_the_priors_that_the_runs_do_not_rule_out() -> None:
    spec = load_changed("meliusnet42", {"growth_rate": 96}).spec
    low, high = probabilities_above(spec, 71.0)
    assert low <= believe([spec])[0].probability_above(71.0) <= high
    assert high - low > 0.02
    for model in target_models():
        means, _ = model.predict(model.inputs)
        assert np.abs(means - results()).max() < 1.0, "each fits the runs"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("meliusnet22", {"pad_value": 0, "stem_pool": 2}),
        ("meliusnet22", {"stem_pool": 2}),
        ("binarydensenet28", {"padding": "same"}),
        ("resnete18", {"pad_value": 0}),
    ],
)
def test_borders_that_no_run_had_are_outside_and_doubted(name: str, change: dict[str, Any]) -> None:
    usual, other = load_name(name), load_changed(name, change).spec
    assert (outside(usual), outside(other)) == ((), ("border",))
    before, after = believe([usual, other])
    assert after.top1 == before.top1
    assert after.deviation == pytest.approx(math.hypot(before.deviation, OUTSIDE))
