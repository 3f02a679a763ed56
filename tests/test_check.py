"""Checks of proxies: the plan, the networks, what is judged by what, and the command end to end."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from conftest import TINY_SPACE, Cli, run_here
from forked import Forks

from meliuscli.errors import BadInputError, MeliusError
from meliuscli.report.check import check_table, plot, sentence
from meliuscli.report.tables import to_csv
from meliuscli.search.check import Check, DataFacts, Trained, as_trained, data_directory, read_check, sample
from meliuscli.search.plan import LONG, LONGER, OWN, Changes, CheckPlan, changed, long_way, make_plan, read_changes
from meliuscli.search.space import Candidate, SearchSpace, load_space
from meliuscli.search.trust import kendall_tau
from meliuscli.search.verdicts import Row, rows
from meliuscli.training.recipe import Recipe

MINI = "fashion-mnist-mini"
DATA = {MINI: DataFacts(10, 1, 5000, "0")}


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return load_space("meliusnet")[1]


def plan_for(space: SearchSpace, **changes: Any) -> CheckPlan:
    return make_plan("meliusnet", space, Changes(), fractions=(0.5,)).model_copy(update=changes)


# The plan


def test_the_long_training_is_the_final_one_but_longer(space: SearchSpace) -> None:
    way = long_way(space, Changes(), None, None)
    assert way.recipe == space.final.recipe.model_copy(update={"epochs": LONGER * space.proxy.recipe.epochs})
    assert (way.dataset, way.input_size) == (space.proxy.dataset, space.proxy.input_size)
    own = Recipe(epochs=5)
    assert long_way(space, Changes(), own, None).recipe == own
    assert long_way(space, Changes(), own, 7.0).recipe.epochs == 7
    changes = Changes(long={"input_size": 16, "recipe": {"epochs": 0.5, "shift": 1}})
    changed_way = long_way(space, changes, None, None)
    assert (changed_way.input_size, changed_way.recipe.epochs, changed_way.recipe.shift) == (16, 0.5, 1)
    assert changed_way.recipe.learning_rate == space.final.recipe.learning_rate


def test_a_proxy_is_the_spaces_own_with_what_is_changed(space: SearchSpace, tmp_path: Path) -> None:
    path = tmp_path / "check.toml"
    path.write_text("[proxies.wider]\nwidth_divisor = 4\n[proxies.longer]\nrecipe = { epochs = 2 }\n")
    proxies = {name: changed(space.proxy, fields, name) for name, fields in read_changes(path).proxies.items()}
    assert proxies["wider"] == space.proxy.model_copy(update={"width_divisor": 4})
    recipe = space.proxy.recipe.model_copy(update={"epochs": 2.0})
    assert proxies["longer"] == space.proxy.model_copy(update={"recipe": recipe})


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[proxies.proxy]\ninput_size = 8", "proxies.proxy: this name is taken"),
        ("[proxies.long]\ninput_size = 8", "proxies.long: this name is taken"),
        ("[proxy]\ninput_size = 8", "proxy: unknown key"),
        ("[proxies]\nx = 8", "proxies.x"),
        ("[proxies.x\n", "not valid TOML"),
    ],
)
def test_a_bad_check_file_is_refused(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "check.toml"
    path.write_text(content)
    with pytest.raises(BadInputError) as caught:
        read_changes(path)
    assert says in caught.value.message
    assert "check.toml" in caught.value.message


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"input_size": 0}, "x.input_size"),
        ({"widthdivisor": 2}, "x.widthdivisor: unknown key"),
        ({"recipe": "paper"}, "x.recipe: must be a table"),
        ({"recipe": {"epoch": 2}}, "x.recipe.epoch: unknown key"),
        ({"dataset": "mnits"}, "unknown data set"),
    ],
)
def test_a_bad_way_of_training_is_refused_by_key(space: SearchSpace, fields: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInputError) as caught:
        changed(space.proxy, fields, "x")
    assert says in caught.value.message


def test_a_plan_may_only_grow(space: SearchSpace) -> None:
    made = plan_for(space)
    wider = space.proxy.model_copy(update={"width_divisor": 4})
    grown = plan_for(space, proxies={OWN: space.proxy, "wider": wider})
    assert grown.differs_from(made) is None
    assert (made.differs_from(grown) or ("",))[0].startswith("proxies.wider.")
    assert plan_for(space, proxies={OWN: wider}).differs_from(made) == ("proxies.proxy.width_divisor", 8)
    assert plan_for(space, data_dir="/elsewhere").differs_from(made) is None
    for name, value in (("networks", 25), ("seed", 1), ("budget", 10**8), ("fractions", ()), ("long", wider)):
        assert (plan_for(space, **{name: value}).differs_from(made) or ("",))[0].startswith(name)
    assert CheckPlan.model_validate_json(grown.model_dump_json()) == grown


def test_one_directory_of_data_is_for_one_data_set(space: SearchSpace) -> None:
    plan = make_plan("meliusnet", space, Changes(), long_dataset="cifar10", data_dir=Path("here"))
    assert {way.dataset for way in plan.ways.values()} == {MINI, "cifar10"}
    assert data_directory(plan, MINI) is None
    assert data_directory(plan, "cifar10") == Path("here").resolve()
    changes = Changes(proxies={"other": {"dataset": "fashion-mnist"}})
    with pytest.raises(BadInputError, match="this check reads fashion-mnist, cifar10"):
        make_plan("meliusnet", space, changes, long_dataset="cifar10", data_dir=Path("here"))


# The networks


@pytest.fixture(scope="module")
def networks(space: SearchSpace) -> tuple[Candidate, ...]:
    return sample(space, plan_for(space), DATA)


def test_networks_follow_the_seed(tiny_space: Path) -> None:
    space = load_space(str(tiny_space))[1]
    first, again, other = (sample(space, plan_for(space, networks=8, seed=seed), DATA) for seed in (0, 0, 1))
    assert first == again != other


def test_networks_are_different_within_the_budget_and_spread_over_ops(
    space: SearchSpace, networks: tuple[Candidate, ...]
) -> None:
    cheap = plan_for(space, budget=3 * 10**8)
    for plan, found in ((plan_for(space), networks), (cheap, sample(space, cheap, DATA))):
        trained = {as_trained(candidate.spec, plan.long, DATA[MINI]).archid for candidate in found}
        assert len({candidate.archid for candidate in found}) == len(trained) == 24
        assert all(candidate.ops <= (plan.budget or math.inf) for candidate in found)
        logs = np.log([candidate.ops for candidate in found])
        assert np.histogram(logs, 3)[0].min() >= 5  # the lowest third holds one in twenty of the space
        # Any beginning is spread too.
        assert np.ptp(logs[:6]) > 0.7 * np.ptp(logs)


def test_networks_that_some_way_cannot_train_are_not_taken(space: SearchSpace) -> None:
    tiny = space.proxy.model_copy(update={"input_size": 2})
    with pytest.raises(BadInputError, match=r"proxy\.input_size: 2 is too small for meliusnet"):
        sample(space, plan_for(space, proxies={OWN: space.proxy, "tiny": tiny}), DATA)
    with pytest.raises(BadInputError, match="the smallest network of this space needs"):
        sample(space, plan_for(space, budget=1000), DATA)


# What is judged by what


def made_up(
    space: SearchSpace,
    networks: tuple[Candidate, ...],
    proxy: list[float],
    curves: list[list[list[float]]],
    **changes: Any,
) -> Check:
    """A check with these accuracies: of the proxy by network, and of the long runs by seed, network and epoch. NaN is a
    training that failed."""
    plan = plan_for(space, networks=len(proxy), **changes)
    networks = networks[: len(proxy)]

    def outcome(curve: list[float], seconds: float) -> dict[str, Any]:
        if any(map(math.isnan, curve)):
            return {"reason": "diverged"}
        points = [{"epoch": index + 1, "validation_top1": top1} for index, top1 in enumerate(curve)]
        return {"validation_top1": curve[-1], "seconds": seconds, "curve": points}

    trainings: Trained = {OWN: {}, LONG: {}}
    for index, candidate in enumerate(networks):
        trainings[OWN][candidate.archid] = {"0": outcome([proxy[index]], 1.0)}
        trainings[LONG][candidate.archid] = {
            str(seed): outcome(curves[place][index], 10.0) for place, seed in enumerate(plan.long_seeds)
        }
    return Check(Path(), plan, DATA, networks, {"command": "meliuscli", "time": ""}, trainings)


def by_name(check: Check) -> dict[str, Row]:
    return {row.name: row for row in rows(check)}


def test_no_training_is_judged_by_itself(space: SearchSpace, networks: tuple[Candidate, ...]) -> None:
    """Halfway each long training is in the order of its own end; the two ends have little in common."""
    rng = np.random.default_rng(0)
    first, second, proxy = rng.uniform(0.3, 0.9, (3, 12))
    curves = [[[top1 - 0.1, top1] for top1 in end] for end in (first, second)]
    found = by_name(made_up(space, networks, list(proxy), curves))
    between = float(kendall_tau(first, second))
    assert abs(between) < 0.5
    assert found["long at 50 %"].trust.tau == pytest.approx(between)
    assert found["long, other seed"].trust.tau == pytest.approx(between)
    assert found[OWN].trust.tau == pytest.approx(float(kendall_tau(proxy, (first + second) / 2)))


def test_costs_are_shares_of_the_long_training_and_free_numbers_cost_nothing(
    space: SearchSpace, networks: tuple[Candidate, ...]
) -> None:
    rng = np.random.default_rng(1)
    curves = rng.uniform(0.3, 0.9, (2, 8, 4)).tolist()
    found = by_name(made_up(space, networks, list(rng.uniform(0.3, 0.9, 8)), curves, fractions=(0.25, 0.5)))
    assert (found[OWN].seconds, found[OWN].share) == (1.0, pytest.approx(0.1))
    assert (found["long at 25 %"].seconds, found["long at 25 %"].share) == (2.5, 0.25)
    halfway = [[curve[1] for curve in run] for run in curves]
    assert found["long at 50 %"].scores.tolist() == halfway
    assert {row.share for row in found.values() if row.kind == "free"} == {0.0}
    assert math.isnan(found["OPs"].trust.tau_given_ops)


def test_the_free_numbers_are_hard_to_beat_where_they_make_the_truth(
    space: SearchSpace, networks: tuple[Candidate, ...]
) -> None:
    sizes = np.log([candidate.count.size_bytes for candidate in networks[:16]])
    truth = 0.5 + 0.1 * (sizes - sizes.mean())
    curves = [[[value, value] for value in truth]] * 2
    noise = np.random.default_rng(2).uniform(0.3, 0.9, 16)
    found = by_name(made_up(space, networks, list(noise), curves))
    assert found["packed size"].trust.tau == 1
    assert found["packed size"].trust.tau_given_ops == 1
    assert found["free numbers together"].trust.tau > 0.9
    assert not found[OWN].trust.adds_to_free
    assert "is not shown to rank beyond OPs" in sentence(found[OWN])


def test_a_proxy_that_is_the_truth_beats_the_free_numbers(space: SearchSpace, networks: tuple[Candidate, ...]) -> None:
    truth = np.random.default_rng(3).uniform(0.3, 0.9, 16)
    check = made_up(space, networks, list(truth), [[[value, value] for value in truth]] * 2)
    row = by_name(check)[OWN]
    assert row.trust.tau == row.trust.tau_given_ops == 1
    assert row.trust.regret == 0
    assert row.trust.adds_to_free
    assert f"{OWN}: adds to the free numbers" in sentence(row)
    assert "Alone it ranks worse than OPs do (tau 2.00)" in sentence(row, 2.0)
    assert "Alone" not in sentence(row, row.trust.tau)
    assert plot(check, rows(check), "png").startswith(b"\x89PNG")


def test_failed_trainings_and_those_at_chance_are_counted_and_said(
    space: SearchSpace, networks: tuple[Candidate, ...]
) -> None:
    rng = np.random.default_rng(4)
    proxy = [math.nan, 0.1, *rng.uniform(0.3, 0.9, 8)]
    curves = rng.uniform(0.3, 0.9, (2, 10, 2)).tolist()
    curves[1][5][1] = math.nan
    found = by_name(made_up(space, networks, proxy, curves))
    assert (found[OWN].num_failed, found[OWN].num_at_chance, found[OWN].trust.n) == (1, 1, 8)
    assert found["packed size"].trust.n == 9
    assert "1 trainings failed and are left out. 1 trainings ended at chance." in sentence(found[OWN])


@pytest.mark.parametrize("value", [0.1, math.nan])
def test_when_all_fail_or_are_at_chance_there_is_a_table_that_says_nothing(
    space: SearchSpace, networks: tuple[Candidate, ...], value: float
) -> None:
    check = made_up(space, networks, [value] * 6, [[[value, value]] * 6] * 2)
    table = check_table(check, rows(check))
    assert all("nothing can be said" in line for line in table.lines)
    assert plot(check, rows(check), "svg")


# The command


CHECK = """
[long]
recipe = { epochs = 0.1 }

[proxies.wider]
width_divisor = 8
recipe = { epochs = 0.04 }
"""
ARGS = ("check-proxy", "tiny.toml", "--networks", "4", "--check", "check.toml", "--at-fraction", "0.5")


def with_files(directory: Path) -> Path:
    (directory / "tiny.toml").write_text(TINY_SPACE)
    (directory / "check.toml").write_text(CHECK)
    return directory


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Path:
    """A directory with a finished check in it."""
    directory = with_files(tmp_path_factory.mktemp("check"))
    done = forks.run([*ARGS, "--workers", "2", "--format", "json", "--output", "answer.json"], directory)
    assert done.returncode == 0, done.stderr
    assert "16 of 16 trainings:" in done.stderr
    return directory


def test_a_check_writes_all_that_it_promises(finished: Path) -> None:
    folder = finished / "reports" / "check-tiny"
    names = {path.name for path in folder.iterdir()}
    assert {"report.md", "check.csv", "check.png", "check.svg", "check.json", "space.toml", "check.toml"} <= names
    result = json.loads((finished / "answer.json").read_text())
    assert [row["proxy"] for row in result["rows"][:4]] == ["long, other seed", "proxy", "wider", "long at 50 %"]
    assert [row["n"] for row in result["rows"]] == [4] * len(result["rows"])
    stored = json.loads((folder / "check.json").read_text())
    assert {way: sum(map(len, runs.values())) for way, runs in stored["trainings"].items()} == {
        "proxy": 4,
        "wider": 4,
        "long": 8,
    }
    (network, *_), *_ = [list(stored["trainings"]["long"].items())]
    assert [metrics["epoch"] for metrics in network[1]["1"]["curve"]] == [0.05, 0.1]
    assert network[1]["1"]["validation_top1"] != network[1]["2"]["validation_top1"]


def test_checks_are_listed_and_shown(finished: Path, cli: Cli) -> None:
    answered = json.loads((finished / "answer.json").read_text())
    listed = json.loads(cli("list", "checks", "--format", "json", cwd=finished).stdout)["checks"]
    assert [(check["name"], check["trainings"], check["state"]) for check in listed] == [("check-tiny", 16, "finished")]
    shown = json.loads(cli("show", "check:check-tiny", "--format", "json", cwd=finished).stdout)
    assert shown["rows"] == answered["rows"]
    assert shown["state"] == "done: 16 of 16 trainings"
    assert shown["resume"] is None, "it is finished"


def copied(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "reports" / "check-tiny" / "check.json"


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--networks", "5"), "check:check-tiny was begun with --networks 4"),
        (("--seed", "1"), "was begun with --seed 0"),
        (("--budget", "1e8"), "was begun without --budget"),
        (("--long-epochs", "0.3"), "was begun with --long-epochs 0.1"),
        (("--at-fraction", "0.25"), "was begun with --at-fraction 0.5"),
        (("--force",), "exclude each other"),
        (("--name", "other"), "no check to resume"),
        (("--name", "../x"), "plain folder name"),
    ],
)
def test_another_setting_is_refused(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...], says: str
) -> None:
    path = copied(finished, tmp_path, monkeypatch)
    before = path.read_bytes()
    with pytest.raises(BadInputError) as caught:
        run_here(*(ARGS[:2] + ARGS[4:] if "--networks" in more else ARGS), "--resume", *more)
    assert says in caught.value.message
    assert path.read_bytes() == before


def test_proxies_may_be_added_to_a_finished_check(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copied(finished, tmp_path, monkeypatch)
    before = json.loads(path.read_text())["trainings"]
    (tmp_path / "check.toml").write_text(CHECK + "[proxies.short]\nrecipe = { epochs = 0.02 }\n")
    run_here(*ARGS, "--resume", "--workers", "1")
    after = json.loads(path.read_text())["trainings"]
    assert len(after.pop("short")) == 4
    assert after == before
    assert "short" in capsys.readouterr().out


def test_a_check_of_another_space_is_refused(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied(finished, tmp_path, monkeypatch)
    (tmp_path / "tiny.toml").write_text(TINY_SPACE.replace("input_size = 64", "input_size = 96"))
    with pytest.raises(BadInputError, match="the space is another one"):
        run_here(*ARGS, "--resume")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("melusnet",), "unknown search space"),
        (("none.toml",), "no such file"),
        (("tiny.toml", "--check", "none.toml"), "no such file"),
        (("tiny.toml", "--long-dataset", "fashion"), "unknown data set"),
        (("tiny.toml", "--long-dataset", "cifar10", "--data", "nowhere"), "no directory"),
        (("tiny.toml", "--data", "."), "this check reads only the embedded data set"),
        (("tiny.toml", "--long", "papr"), "unknown recipe"),
        (("tiny.toml", "--long-epochs", "0"), "long.recipe.epochs"),
        (("tiny.toml", "--at-fraction", "1"), "--at-fraction 1: must lie between 0 and 1"),
        (("tiny.toml", "--budget", "10"), "the smallest network of this space needs"),
        (("tiny.toml", "--networks", "200"), "200 are asked for"),
        (("tiny.toml", "--networks", "3"), "greater than or equal to 4"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], says: str
) -> None:
    with_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises((MeliusError, typer.BadParameter)) as caught:
        run_here("check-proxy", *args)
    assert says in str(caught.value)
    assert not (tmp_path / "reports").exists()


@pytest.mark.parametrize("name", ["proxy-fashion-mnist", "proxy-cifar10"])
def test_the_committed_reports_follow_from_their_trainings(name: str) -> None:
    directory = Path(__file__).parents[1] / "reports" / name
    check = read_check(directory, load_space(str(directory / "space.toml"))[1])
    again = io.StringIO(to_csv(check_table(check, rows(check))))
    committed = io.StringIO((directory / "check.csv").read_text())
    for ours, theirs in zip(csv.DictReader(again), csv.DictReader(committed), strict=True):
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            if value != theirs[key]:
                assert float(value) == pytest.approx(float(theirs[key]), abs=1e-6), key
