"""``search --transfer``: finalists on data that the search never used."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY_SPACE, Cli
from forked import Forks
from PIL import Image

from meliuscli.arch.zoo import load_name
from meliuscli.counting.analytic import count_spec
from meliuscli.errors import BadInputError
from meliuscli.search.begin import Asked, begin
from meliuscli.search.cost import OPS
from meliuscli.search.entrants import Entrant, compared
from meliuscli.search.finals import Round, Standing, Verdict
from meliuscli.search.resume import go_on, reopen, with_given
from meliuscli.search.space import load_space

TRANSFER = """
[transfer]
input_size = 16
width_divisor = 4

[transfer.recipe]
epochs = 1.0
batch_size = 10
learning_rate = 0.01
betas = [0.9, 0.99]
"""
SEARCH = ("search", "--budget", "1e8", "--space", "tiny.toml", "--trials", "3", "--finalists", "1")


def write_images(root: Path, seed: int = 0) -> Path:
    """Two classes that differ in brightness."""
    random = np.random.default_rng(seed)
    for split, count in (("train", 24), ("test", 8)):
        for label, name in enumerate(("dark", "light")):
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(100 * label, 100 * label + 120, (16, 16, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Path:
    """A directory with a finished study without transfer, and images that it never used."""
    directory = tmp_path_factory.mktemp("studied")
    (directory / "tiny.toml").write_text(TINY_SPACE + TRANSFER)
    write_images(directory / "images")
    forks.run([*SEARCH, "--final-seeds", "2", "--workers", "1"], directory).check_returncode()
    return directory


@pytest.fixture
def study(studied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MELIUSCLI_CACHE", str(tmp_path / "cache"))
    shutil.copytree(studied, tmp_path, dirs_exist_ok=True)
    return tmp_path / "reports" / "tiny-100M"


RESUME = ("search", "--resume", "--study", "tiny-100M")


def test_a_finished_study_is_moved_to_other_data(study: Path, cli: Cli) -> None:
    trials, finals = ((study / name).read_bytes() for name in ("trials.csv", "finals.json"))
    done = cli(*RESUME, "--transfer", "images", "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert "Transfer to images" in done.stdout
    assert "On images no finalist is within the OPs of a published network." in done.stdout, "the space has none"
    kept = json.loads((study / "transfer.json").read_text())["trainings"]
    assert sorted(kept) == sorted(json.loads(finals)["trainings"])
    for runs in kept.values():
        assert sorted(runs) == ["0", "1"]
        assert all(run["test_top1"] * 16 == pytest.approx(round(run["test_top1"] * 16)) for run in runs.values())
    assert (study / "trials.csv").read_bytes() == trials
    assert (study / "finals.json").read_bytes() == finals
    assert "- Transfer: images at 16x16" in (study / "report.md").read_text()

    before = (study / "transfer.json").read_bytes()
    again = cli(*RESUME, "--format", "json")
    assert again.returncode == 0, again.stderr
    assert (study / "transfer.json").read_bytes() == before, "what was trained is kept"
    assert {one["archid"] for one in json.loads(again.stdout)["transfer"]} == set(kept)

    shutil.copytree(study.parents[1] / "images", study.parents[1] / "others")
    other = cli(*RESUME, "--transfer", "others")
    assert (other.returncode, "was begun with --transfer" in other.stderr) == (2, True)
    (study.parents[1] / "images" / "train" / "dark" / "0.png").unlink()
    changed = cli(*RESUME)
    assert changed.returncode == 2
    assert "other data" in changed.stderr


@pytest.mark.parametrize(
    ("value", "code", "says"),
    [
        ("nowhere", 3, "neither a data set nor a directory"),
        ("cifar10:nowhere", 3, "nowhere"),
        ("imagefolder", 3, "--transfer imagefolder:DIR"),
        ("fashion-mnist-mini", 2, "the search itself uses these data"),
        ("reports", 3, "train"),
    ],
)
def test_data_that_cannot_be_moved_to_cost_no_training(study: Path, cli: Cli, value: str, code: int, says: str) -> None:
    stored = (study / "study.json").read_bytes()
    done = cli(*RESUME, "--transfer", value, MELIUSCLI_DATA=str(study / "none"))
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert (study / "study.json").read_bytes() == stored
    assert not (study / "transfer.json").exists()
    fresh = cli(*SEARCH, "--study", "fresh", "--transfer", value, MELIUSCLI_DATA=str(study / "none"))
    assert fresh.returncode == code
    assert not (study.parent / "fresh").exists(), "refused before a folder is made"


def test_a_copy_of_the_searchs_own_images_is_no_other_data(studied: Path, tmp_path: Path, cli: Cli) -> None:
    shutil.copytree(studied / "images", tmp_path / "images")
    shutil.copytree(studied / "images", tmp_path / "copy")
    (tmp_path / "tiny.toml").write_text(TINY_SPACE + TRANSFER)
    done = cli(*SEARCH, "--data", "images", "--transfer", "copy", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "these are the images that the search itself uses" in done.stderr
    assert not (tmp_path / "reports").exists()


def test_a_search_on_ones_own_data_is_for_their_classes(studied: Path, tmp_path: Path) -> None:
    asked = Asked((5e8,), data=studied / "images", dataset="imagefolder")
    begun = begin(asked, 1, tmp_path / "reports")
    assert (begun.space.target["num_classes"], begun.space.target["input_channels"]) == (2, 3)
    known = dict(begun.space.known_candidates())["meliusnet22"]
    assert known.spec.num_classes == begun.space.any_candidate.spec.num_classes == 2
    assert known.count.params == count_spec(load_name("meliusnet22")).total.params - 998 * 513, (
        "weights and bias of 998 classes less"
    )
    again = reopen(begun.directory)
    assert again.space == begun.space
    assert again.settings == begun.settings


def test_a_study_goes_on_where_its_images_have_moved_to(studied: Path, tmp_path: Path) -> None:
    shutil.copytree(studied / "images", tmp_path / "images")
    begun = begin(Asked((5e8,), data=tmp_path / "images", dataset="imagefolder"), 1, tmp_path / "reports")
    (tmp_path / "images").rename(tmp_path / "moved")
    again = go_on(with_given(reopen(begun.directory), {"data": tmp_path / "moved"}))
    assert again.settings.data == tmp_path / "moved"
    assert again.origin["dataset"] == begun.origin["dataset"]
    assert reopen(begun.directory).settings == again.settings
    next((tmp_path / "moved" / "train" / "dark").iterdir()).unlink()
    with pytest.raises(BadInputError, match="other data"):
        go_on(with_given(reopen(begun.directory), {"data": tmp_path / "moved"}))


def test_of_equal_networks_the_cheaper_one_comes_first(tmp_path: Path) -> None:
    known = sorted(load_space("meliusnet")[1].known_candidates(), key=lambda item: -item[1].ops)
    entrants = [Entrant(name, name, candidate) for name, candidate in known]
    run = {"test_top1": 0.5, "validation_top1": 0.5}
    (tmp_path / "stage.json").write_text(json.dumps({"trainings": {c.archid: {"0": run} for _, c in known}}))
    stage = Round(tmp_path / "stage.json", 1, lambda candidate, seed: pytest.fail("nothing is trained"), OPS)
    ops = [standing.entrant.candidate.ops for standing in stage.standings(entrants)]
    assert ops == sorted(ops)
    assert len(ops) == 7


def entrant(name: str, known: bool) -> Entrant:
    return Entrant(name, name if known else None, load_space("meliusnet")[1].any_candidate)


@pytest.mark.parametrize(
    ("found", "known", "beaten", "lost"),
    [
        ((0.60, 0.62), (0.50, 0.52), True, False),
        ((0.50, 0.52), (0.60, 0.62), False, True),
        ((0.60, 0.62), (0.605, 0.615), False, False),
        ((0.9,), (0.1,), False, False),
    ],
)
def test_won_lost_or_even(found: tuple[float, ...], known: tuple[float, ...], beaten: bool, lost: bool) -> None:
    verdict = Verdict(Standing(entrant("known", True), known, known), Standing(entrant("found-1", False), found, found))
    assert (verdict.beaten, verdict.lost) == (beaten, lost)


def test_what_a_comparison_needs_is_trained_first() -> None:
    space = load_space("meliusnet")[1]
    known = [Entrant(name, name, candidate) for name, candidate in space.known_candidates()]
    cheap, dear = Entrant("found-1", None, space.smallest), Entrant("found-2", None, known[0].candidate)
    small, large = (pick(known, key=lambda entrant: entrant.candidate.ops) for pick in (min, max))
    assert compared([cheap, large, dear], OPS) == [cheap, large, dear]
    assert compared([dear, small, cheap], OPS) == [small, cheap]
    assert compared([dear, small], OPS) == []


def test_a_round_counts_single_trainings_as_done(tmp_path: Path) -> None:
    one = entrant("found-1", False)
    (tmp_path / "stage.json").write_text(json.dumps({one.candidate.archid: {"1": {"reason": "diverged"}}}))
    stage = Round(tmp_path / "stage.json", 3, lambda candidate, seed: pytest.fail("nothing is trained"), OPS)
    assert stage.num_done([one]) == 1
    assert stage.standings([one]) == []
