"""What a search answers for: beliefs about ImageNet where there is evidence, the proxy's data elsewhere; and hard limits."""

from __future__ import annotations

import csv
import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Cli
from hypothesis import given, settings
from hypothesis import strategies as st

from meliuscli.arch.zoo import spec_from_fields
from meliuscli.errors import BadInputError
from meliuscli.evidence.belief import Belief, believe, probabilities_above
from meliuscli.report.believed import best_lines, comparison_lines, comparisons, preferred
from meliuscli.search.accuracy import MOST_OBSERVED, thinned
from meliuscli.search.cost import OPS
from meliuscli.search.goal import TargetGoal, why_no_belief
from meliuscli.search.limits import Limit, check_limits, params_limit, size_limit
from meliuscli.search.proposals import Proposer
from meliuscli.search.space import SearchSpace, load_space
from meliuscli.search.study import TrialRecord


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return load_space("meliusnet")[1]


def records(space: SearchSpace) -> tuple[list[TrialRecord], dict[str, Belief]]:
    """The known networks, and three that a search proposed; each with an accuracy that is of no interest."""
    known = list(space.known_candidates())[:3]
    goal, pending = TargetGoal(), [candidate for _, candidate in known]
    proposer = Proposer(space, 2.5e8, 0, goal=goal)
    for number in range(3):
        pending.append(proposer.propose(number, False, [], pending))
    names = [name for name, _ in known] + [None] * 3
    trials = [TrialRecord(i, c, name, 0.5, None, None) for i, (c, name) in enumerate(zip(pending, names, strict=True))]
    return trials, {c.archid: b for c, b in zip(pending, goal.beliefs(pending), strict=True)}


def test_proposals_are_better_than_published_ones_by_the_goal(space: SearchSpace) -> None:
    trials, beliefs = records(space)
    for comparison in comparisons(trials, beliefs, OPS):
        if comparison.found is not None and comparison.known.candidate.ops <= 2.5e8:
            found = comparison.found.candidate
            assert found.ops <= comparison.known.candidate.ops
            assert beliefs[found.archid].low > beliefs[comparison.known.candidate.archid].low


def test_the_goal_is_the_belief_that_predict_prints(space: SearchSpace) -> None:
    _, candidate = next(iter(space.known_candidates()))
    lows, _ = TargetGoal().predict([candidate])
    assert lows[0] == believe([candidate.spec])[0].low


def test_nothing_is_believed_of_what_predict_refuses(space: SearchSpace) -> None:
    """Most random networks of the space lie too far from what was measured, and some of a wider one are not covered."""
    wider = re.sub(r'(?m)^stem = "grouped"$', "", load_space("meliusnet")[2]).replace(
        "[parameters]", '[parameters]\nstem = { choices = ["grouped", "thumbnail"] }'
    )
    spaces = (space, SearchSpace.model_validate(tomllib.loads(wider)))
    rng = np.random.default_rng(0)
    drawn = [found for one in spaces for _ in range(30) if (found := one.try_candidate(one.random_params(rng)))]
    said = TargetGoal().beliefs(drawn)
    for candidate, belief in zip(drawn, said, strict=True):
        if belief is None:
            with pytest.raises(BadInputError, match="nothing is known"):
                believe([candidate.spec])
        else:
            assert str(belief) == str(believe([candidate.spec])[0])
    stems = {candidate.spec.stem for candidate, belief in zip(drawn, said, strict=True) if belief}  # type: ignore[attr-defined]
    assert stems == {"grouped"}
    assert sum(belief is None for belief in said) > len(drawn) / 2


def test_a_network_of_which_nothing_is_believed_is_no_answer(space: SearchSpace) -> None:
    trials, beliefs = records(space)
    best = preferred(trials, beliefs, OPS, 2.5e8)
    assert best is not None
    others = {archid: belief for archid, belief in beliefs.items() if archid != best.candidate.archid}
    assert preferred(trials, others, OPS, 2.5e8) not in (best, None)
    known = {trial.candidate.archid: beliefs[trial.candidate.archid] for trial in trials if trial.known_as}
    assert best_lines(trials, known, OPS, (2.5e8,)) == [
        "Within 250M OPs the search trained no network of its own of which anything is believed."
    ]
    assert all("of which anything is believed" in line for line in comparison_lines(trials, known, OPS))


def test_sentences_say_what_was_believed_and_how_sure_it_is(space: SearchSpace) -> None:
    trials, beliefs = records(space)
    compared = comparisons(trials, beliefs, OPS)
    for comparison, line in zip(compared, comparison_lines(trials, beliefs, OPS), strict=True):
        if comparison.found is None:
            continue
        belief = beliefs[comparison.found.candidate.archid]
        said = re.search(
            r"reach ([\d.]+) \(([\d.]+) to ([\d.]+)\).* reached ([\d.]+) at .* is ([^,]*)(, depending on the prior of the model)?\.$",
            line,
        )
        assert said is not None, line
        top1, low, high, reached = map(float, said.groups()[:4])
        least, _, most = said[5].partition(" to ")
        shown = [1.0 if value == "above 0.99" else float(value) for value in (least, most or least)]
        assert (top1, low, high) == pytest.approx((belief.top1, belief.low, belief.high), abs=0.051)
        assert reached == pytest.approx(comparison.reached, abs=0.051)
        spec = comparison.found.candidate.spec
        assert shown == pytest.approx(probabilities_above(spec, comparison.reached), abs=0.0101)
        assert shown[0] <= belief.probability_above(comparison.reached) + 0.0101


def test_each_budget_has_its_answer(space: SearchSpace) -> None:
    trials, beliefs = records(space)
    lines = best_lines(trials, beliefs, OPS, (1.0, 2.5e8))
    assert lines[0] == "Within 1 OPs the search trained no network of its own."
    best = preferred(trials, beliefs, OPS, 2.5e8)
    assert best is not None
    assert f"`found-{best.number}`" in lines[1]
    failed = [replace(trial, accuracy=None) if trial.number == best.number else trial for trial in trials]
    assert preferred(failed, beliefs, OPS, 2.5e8) != best


@settings(max_examples=4, deadline=None)
@given(st.floats(1.0, 8.0), st.floats(1e6, 3e7), st.integers(0, 99))
@pytest.mark.slow
def test_no_proposal_is_over_a_limit(mib: float, params: float, seed: int) -> None:
    space = load_space("meliusnet")[1]
    limits = (size_limit(mib * 2**20), params_limit(params))
    proposer = Proposer(space, 3e8, seed, limits=limits, goal=TargetGoal())
    try:
        candidate = proposer.propose(0, False, [], [])
    except Exception:
        with pytest.raises(BadInputError):
            check_limits(space, [Limit("--budget", OPS.of, 1.0, str), *limits])
        return
    assert candidate.count.size_bytes <= mib * 2**20
    assert candidate.count.params <= params
    assert candidate.ops <= 3e8
    assert candidate == Proposer(space, 3e8, seed, limits=limits, goal=TargetGoal()).propose(0, False, [], [])


def test_published_networks_are_answered_at_their_own_costs(space: SearchSpace) -> None:
    known = [candidate for _, candidate in space.known_candidates() if candidate.ops <= 3.3e8]
    asked = [candidate.ops for candidate in known if candidate.ops > 1.9e8]
    proposer, pending = Proposer(space, 3.3e8, 0, goal=TargetGoal(), asked=asked), list(known)
    for number in range(6):
        pending.append(proposer.propose(number, False, [], pending))
    found = pending[len(known) :]
    assert len(asked) == 4
    for ops in asked:
        assert any(0.95 * ops < candidate.ops <= ops for candidate in found), [c.ops for c in found]


def test_of_many_observations_their_order_chooses() -> None:
    kept = thinned(1000).tolist()
    assert len(set(kept)) == MOST_OBSERVED
    assert kept == sorted(kept)
    assert kept[0] == 0
    assert kept[-MOST_OBSERVED // 2 :] == list(range(1000 - MOST_OBSERVED // 2, 1000))
    assert thinned(MOST_OBSERVED).tolist() == list(range(MOST_OBSERVED))


def test_what_counting_decided_is_counted(space: SearchSpace) -> None:
    proposer = Proposer(space, 8e7, 0, goal=TargetGoal())
    proposer.propose(0, False, [], [])
    assert proposer.num_decided > 0


def test_limits_that_exclude_each_other_name_the_nearest_network(space: SearchSpace) -> None:
    limits = [Limit("--budget", OPS.of, 1e8, lambda ops: f"{ops:.0f} OPs"), params_limit(1e5)]
    with pytest.raises(BadInputError, match="--budget 100000000 OPs and --max-params") as refused:
        check_limits(space, limits)
    assert refused.value.hint is not None
    assert "comes nearest" in refused.value.hint


def test_spaces_without_evidence_say_why() -> None:
    assert why_no_belief(load_space("meliusnet")[1]) is None
    assert why_no_belief(load_space("binarydensenet")[1]) is None
    assert "birealnet" in (why_no_belief(load_space("birealnet")[1]) or "")
    assert "input_size" in (why_no_belief(load_space("meliusnet-cifar")[1]) or "")


def test_a_search_for_imagenet_ends_in_beliefs(cli: Cli, tmp_path: Path) -> None:
    options = ("--trials", "2", "--finalists", "1", "--final-seeds", "1", "--workers", "1", "--seed", "0")
    text = load_space("meliusnet")[2].replace("epochs = 0.7", "epochs = 0.02").replace("epochs = 1.0", "epochs = 0.02")
    text = re.sub(r"(?m)^known = .*$", 'known = ["meliusnet-c"]', text)
    (tmp_path / "short.toml").write_text(text)
    done = cli(
        "search", "--budget", "1.5e8,2e8", "--max-params", "2e7", "--space", "short.toml", *options, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    first = next(line for line in done.stderr.splitlines() if not line.endswith("..."))
    assert first.startswith("this search answers for ImageNet; believed top-1:")
    assert "Within 150M OPs the search " in done.stdout
    assert "Within 200M OPs the search prefers `found-" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("This search answers for ImageNet")
    assert {"best.toml", "best-150M.toml"} >= {path.name for path in (tmp_path / "reports/short-200M").glob("best*")}
    folder = tmp_path / "reports" / "short-200M"
    best = tomllib.loads((folder / "best.toml").read_text())
    assert believe([spec_from_fields(best)])[0].low > 50
    refused = cli("search", "--resume", "--study", "short-200M", "--max-params", "3e7", cwd=tmp_path)
    assert refused.returncode == 2
    assert "--max-params" in refused.stderr
    again = cli("search", "--resume", "--study", "short-200M", "--format", "json", cwd=tmp_path)
    front = json.loads(again.stdout)["front"]
    assert all(row["believed"]["low"] < row["believed"]["top1"] < row["believed"]["high"] for row in front)
    assert np.all(np.diff([row["believed"]["low"] for row in front]) > 0)


@pytest.mark.slow
def test_a_search_that_trains_only_published_networks_has_no_answer(cli: Cli, tmp_path: Path) -> None:
    text = load_space("meliusnet")[2].replace("epochs = 0.7", "epochs = 0.02")
    (tmp_path / "short.toml").write_text(re.sub(r"(?m)^known = .*$", 'known = ["meliusnet-c"]', text))
    done = cli("search", "--budget", "2e8", "--space", "short.toml", "--trials", "1", "--workers", "1")
    assert done.returncode == 1
    assert "trained no network of its own" in done.stderr
    assert " finals: " not in done.stderr, "published networks alone are not compared"
    assert "Finals" not in done.stdout
    assert not (tmp_path / "reports" / "short-200M" / "best.toml").exists()


@pytest.mark.slow
def test_a_search_beyond_the_evidence_has_no_answer(cli: Cli, tmp_path: Path) -> None:
    """No published network has so few OPs: what is found there is trained, and called believed nowhere."""
    text = load_space("meliusnet")[2].replace("epochs = 0.7", "epochs = 0.02")
    (tmp_path / "short.toml").write_text(re.sub(r"(?m)^known = .*$", 'known = ["meliusnet-c"]', text))
    options = ("--space", "short.toml", "--trials", "1", "--workers", "1")
    done = cli("search", "--budget", "1e8", "--max-size", "2MiB", *options, cwd=tmp_path)
    assert done.returncode == 1
    assert "nothing is believed of any network that the search trained" in done.stderr
    assert "meliusnet-c: known, but beyond the budget or another limit, and left out" in done.stderr
    assert "Of 1 of 1 trained networks nothing is believed" in done.stdout
    assert not re.search(r"found-\d", done.stdout)
    folder = tmp_path / "reports" / "short-100M"
    assert not (folder / "best.toml").exists()
    assert (folder / "report.html").exists()
    (row,) = csv.DictReader((folder / "trials.csv").read_text().splitlines())
    assert row["believed_top1"] == ""


def test_belief_where_there_is_none_is_refused(cli: Cli, tmp_path: Path) -> None:
    done = cli("search", "--budget", "2e8", "--space", "birealnet", "--objective", "belief", cwd=tmp_path)
    assert done.returncode == 2
    assert "not of birealnet" in done.stderr
    assert not (tmp_path / "reports").exists()


def test_a_proxy_of_several_seeds_is_refused_rather_than_ignored(cli: Cli, tmp_path: Path) -> None:
    text = load_space("meliusnet")[2].replace("width_divisor = 8", "width_divisor = 8\nseeds = 3")
    (tmp_path / "seeds.toml").write_text(text)
    done = cli("search", "--budget", "2e8", "--space", "seeds.toml", cwd=tmp_path)
    assert done.returncode == 2
    assert "proxy.seeds" in done.stderr
    assert not (tmp_path / "reports").exists()
