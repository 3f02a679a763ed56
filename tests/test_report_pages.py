"""The pages of a study and a check, and a run's table, of fixed values: every word and figure that people read."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import check_golden

from meliuscli.arch.zoo import load_arch
from meliuscli.evidence.belief import believe
from meliuscli.report import check as check_page
from meliuscli.report import study_page
from meliuscli.report.answers import Answer, render
from meliuscli.report.believed import _probability
from meliuscli.report.runs import run_answer
from meliuscli.report.study import StudyReport
from meliuscli.report.study_sentences import verdict_lines
from meliuscli.report.study_tables import study_tables, study_value
from meliuscli.report.tables import Column, Format, Table
from meliuscli.runs import Run, summary
from meliuscli.search.check import Check, DataFacts
from meliuscli.search.cost import OPS
from meliuscli.search.entrants import Entrant
from meliuscli.search.finals import Standing
from meliuscli.search.plan import LONG, OWN, Changes, make_plan
from meliuscli.search.space import SearchSpace, load_space
from meliuscli.search.study import Settings, TrialRecord
from meliuscli.search.targets import published_networks
from meliuscli.search.verdicts import rows
from meliuscli.training.loop import EpochMetrics
from meliuscli.training.run import RunResult

ORIGIN: dict[str, Any] = {
    "command": "meliuscli a-command",
    "time": "2026-01-02T03:04:05+00:00",
    "versions": {"meliuscli": "0.0.0", "torch": "0.0.0"},
    "machine": {"system": "Linux", "processor": "a processor", "cores": 2},
    "dataset": {"name": "fashion-mnist-mini", "digest": "0"},
}
DATA = {"fashion-mnist-mini": DataFacts(10, 1, 5000, "0")}


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return load_space("meliusnet")[1]


def trained(seed: int, top1: float, test: float | None = None) -> RunResult:
    return RunResult(seed, (EpochMetrics(1.0, 1.5, 1.25, top1),), test, 12.5, 400.0)


def study_of(space: SearchSpace, place: Path, beliefs: bool) -> StudyReport:
    """Two published networks and two others, one of which failed."""
    candidates = dict(space.known_candidates())
    known = [(name, candidates[name]) for name in ("meliusnet22", "meliusnet29")]
    found = [candidates[name] for name in ("meliusnet42", "meliusnet-a")]  # as if the search had found them
    records = [
        *(
            TrialRecord(number, candidate, name, 0.80 + number / 100, None, trained(0, 0.80 + number / 100))
            for number, (name, candidate) in enumerate(known)
        ),
        TrialRecord(7, found[0], None, 0.845, None, trained(0, 0.845)),
        TrialRecord(8, found[1], None, None, "diverged", None),
    ]
    entrants = (Entrant("found-7", None, found[0]), *(Entrant(name, name, candidate) for name, candidate in known))
    standings = tuple(
        Standing(entrant, (0.9 - index / 50,) * 3, (0.88 - index / 50, 0.89 - index / 50, 0.9 - index / 50))
        for index, entrant in enumerate(entrants)
    )
    maximises = "belief" if beliefs else "proxy"
    settings = Settings("meliusnet", 5e8, 8, 0, "cost-aware", 1, 3, 4, maximises=maximises)  # type: ignore[arg-type]
    believed = {
        r.candidate.archid: b for r, b in zip(records, believe([r.candidate.spec for r in records]), strict=True)
    }
    place.mkdir()
    for name in ("study.json", "journal.log", "trials.csv"):
        (place / name).touch()
    return StudyReport(
        *(place, settings, space, OPS, tuple(records), 9, entrants, standings, (), ORIGIN, believed if beliefs else {})
    )


def check_of(space: SearchSpace) -> Check:
    """Ten networks, of which one failed; the proxy ranks about as the long training does."""
    plan = make_plan("meliusnet", space, Changes(), networks=10, fractions=(0.5,))
    networks = published_networks()[:10]
    noise = np.random.default_rng(0).normal(scale=0.01, size=(3, 10)).tolist()
    truth = [0.6 + 0.05 * math.log(candidate.ops / 1e8) for candidate in networks]
    trainings: dict[str, Any] = {OWN: {}, LONG: {}}
    for index, candidate in enumerate(networks):
        ends = [truth[index] + noise[place][index] for place in range(3)]
        curves = [
            [{"epoch": 1.0, "validation_top1": end - 0.1}, {"epoch": 2.0, "validation_top1": end}] for end in ends
        ]
        outcomes = [
            {"validation_top1": end, "seconds": 10.0, "curve": curve} for end, curve in zip(ends, curves, strict=True)
        ]
        own: dict[str, Any] = {"reason": "diverged"} if index == 3 else {**outcomes[2], "seconds": 2.5}
        trainings[OWN][candidate.archid] = {"0": own}
        trainings[LONG][candidate.archid] = {str(seed): outcomes[at] for at, seed in enumerate(plan.long_seeds)}
    return Check(Path("check-golden"), plan, DATA, networks, ORIGIN, trainings)


@pytest.mark.parametrize("beliefs", [True, False], ids=["belief", "proxy"])
def test_the_page_of_a_study(space: SearchSpace, tmp_path: Path, beliefs: bool) -> None:
    report = study_of(space, tmp_path / "golden", beliefs)
    page = study_page.markdown(report).replace(str(tmp_path), "reports")
    check_golden(f"study-{'belief' if beliefs else 'proxy'}.md", page)


def test_trainings_that_ended_at_chance_are_counted_wherever_their_numbers_stand(
    space: SearchSpace, tmp_path: Path
) -> None:
    whole = study_of(space, tmp_path / "unlucky", True)
    assert not any("chance" in line for table in study_tables(whole) for line in table.lines)
    first, *others = whole.records
    lucky = replace(trained(0, 0.1), at_chance=True)
    records = (replace(first, accuracy=0.1, result=lucky), *others)
    standings = (replace(whole.standings[0], num_at_chance=2), *whole.standings[1:])
    report = replace(whole, records=records, standings=standings)
    front, finals = study_tables(report)
    assert front.lines[-1].startswith("1 of these 3 trainings ended no better than chance")
    assert finals.lines[-1].startswith("2 of these 9 trainings ended no better than chance")
    assert study_value(report)["at_chance"] == 1
    assert [standing["at_chance"] for standing in study_value(report)["finals"]] == [2, 0, 0]
    assert "1 failed, 1 ended at chance;" in study_page.markdown(report)


def test_each_budget_has_its_answer_on_the_proxy_too(space: SearchSpace, tmp_path: Path) -> None:
    whole = study_of(space, tmp_path / "budgets", False)
    budgets = (1e8, 2.1e8, 5e8)
    report = replace(whole, settings=replace(whole.settings, budgets=budgets))
    lines = verdict_lines(report)
    none = "there is no finalist whose trainings say something."
    assert lines[0] == f"Within the budget of 100M OPs {none}"
    assert lines[1] == f"Within the budget of 210M OPs {none}", "found-7 costs 325M OPs"
    assert lines[2].startswith("Best within the budget of 500M OPs: `found-7` beats `meliusnet22` by 2.00 points")
    assert list(study_page.best_files(report)) == ["best.toml"]
    cheap = replace(whole.standings[0], entrant=replace(whole.standings[1].entrant, name="found-3", known_as=None))
    report = replace(report, standings=(cheap, *whole.standings))
    assert list(study_page.best_files(report)) == ["best-210M.toml", "best.toml"]
    assert "beat 2 of the 2 published networks that have one" in verdict_lines(report)[3]


def test_a_final_at_chance_is_nobodys_best(space: SearchSpace, tmp_path: Path) -> None:
    whole = study_of(space, tmp_path / "chance", False)
    report = replace(whole, standings=(replace(whole.standings[0], num_at_chance=3), *whole.standings[1:]))
    assert study_page.best_files(report) == {}
    assert verdict_lines(report)[0] == (
        "Within the budget of 500M OPs there is no finalist whose trainings say something."
    )
    lucky = replace(trained(0, 0.9), at_chance=True)
    records = (*whole.records[:2], replace(whole.records[2], accuracy=0.9, result=lucky), *whole.records[3:])
    assert [record.number for record in replace(whole, records=records).front] == [0, 1]


def test_one_seed_decides_nothing_and_no_certainty_is_claimed(space: SearchSpace, tmp_path: Path) -> None:
    """It was said that finalists of one seed beat none and lose to none by more than a spread that does not exist."""
    whole = study_of(space, tmp_path / "one", True)
    alone = tuple(replace(s, validation=s.validation[:1], test=s.test[:1]) for s in whole.standings)
    said = verdict_lines(replace(whole, standings=alone, settings=replace(whole.settings, final_seeds=1)))
    assert not any(" beat " in line for line in said)
    assert [_probability(value) for value in (0.001, 0.25, 0.999)] == ["below 0.01", "0.25", "above 0.99"]


def test_a_study_that_has_trained_nothing_yet_answers_for_what_it_was_asked(space: SearchSpace, tmp_path: Path) -> None:
    empty = replace(study_of(space, tmp_path / "empty", True), records=(), standings=(), entrants=(), beliefs={})
    assert "answers for ImageNet" in empty.answers_for


def test_the_line_of_the_front_never_falls(space: SearchSpace, tmp_path: Path) -> None:
    """The front is of lower ends: MeliusNet42's is above that of a network which costs less and has the higher mean."""
    wide = {"num_blocks": [6, 9, 12, 12], "transition_channels": [160, 384, 512], "groups": 2}
    candidates = dict(space.known_candidates())
    dear = candidates["meliusnet42"]
    params = space.params_of(dear.spec.replace(**wide))
    assert params is not None
    cheap = space.candidate(params)
    records = tuple(
        TrialRecord(number, candidate, None, 0.8, None, trained(0, 0.8))
        for number, candidate in enumerate((cheap, dear))
    )
    beliefs = {r.candidate.archid: b for r, b in zip(records, believe([cheap.spec, dear.spec]), strict=True)}
    report = replace(study_of(space, tmp_path / "line", True), records=records, beliefs=beliefs)
    assert cheap.ops < dear.ops
    assert beliefs[cheap.archid].top1 > beliefs[dear.archid].top1
    assert [record.candidate for record in report.front] == [cheap, dear]
    assert report.front_line == [(cheap.ops, beliefs[cheap.archid].top1), (dear.ops, beliefs[cheap.archid].top1)]


def test_the_page_of_a_check(space: SearchSpace) -> None:
    check = check_of(space)
    check_golden("check.md", check_page.markdown(check, rows(check)))


@pytest.mark.parametrize("page", ["study-belief.md", "study-proxy.md", "check.md"])
def test_a_page_is_whole(page: str) -> None:
    text = (Path(__file__).parent / "golden" / page).read_text()
    assert re.search(r"\bnan\b|\binf\b|None|\{\w+\}", text) is None
    (block,) = re.findall("```json\n(.*?)\n```", text, re.DOTALL)
    assert json.loads(block)["command"] == ORIGIN["command"]
    assert {"## What was done", "## To repeat it"} <= set(text.splitlines())


@pytest.mark.parametrize("fmt", ["table", "markdown", "latex"])
def test_a_runs_table(fmt: Format) -> None:
    spec = load_arch("meliusnet22", ["num_classes=10", "input_channels=1", "input_size=32", "stem=thumbnail"]).spec
    runs = [{**trained(seed, 0.7 + seed / 50, 0.69 + seed / 50).fields(), "energy_joules": 100.0} for seed in range(3)]
    record = {
        "id": "12345678",
        "arch": "meliusnet22",
        "archid": load_arch("meliusnet22").spec.archid,
        "trained_as": spec.model_dump(mode="json"),
        "dataset": {"name": "fashion-mnist-mini", "digest": "0"},
        "recipe": {"epochs": 1.0, "batch_size": 50},
        "n": 3,
        "validation_top1": summary([run["validation_top1"] for run in runs]),
        "test_top1": summary([run["test_top1"] for run in runs]),
        "runs": runs,
        "origin": ORIGIN,
    }
    check_golden(f"run.{fmt}", render(run_answer(Run(Path("x"), record)), fmt))


def test_one_function_renders_every_format() -> None:
    """CSV is the first table unless the answer has another; what follows the tables is the format's own."""
    table = Table("a title", (Column("name", numeric=False), Column("n")), (("x", 1),))
    answer = Answer((table, replace(table, title="second")), lambda: {"n": 1}, endings={"markdown": "the end\n"})
    assert render(answer, "json") == '{\n  "schema_version": 1,\n  "n": 1\n}\n'
    assert render(answer, "csv") == "name,n\nx,1\n"
    assert render(replace(answer, csv=lambda: "raw\n"), "csv") == "raw\n"
    assert render(answer, "table").count("----") == 2
    assert render(answer, "markdown").endswith("the end\n")
    assert "the end" not in render(answer, "latex")
