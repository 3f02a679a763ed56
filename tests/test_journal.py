"""A study's journal is not ours alone: killed processes leave locks in it, and other programs write trials into it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from conftest import TINY_SPACE
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from meliuscli.errors import BadInputError
from meliuscli.search import storage
from meliuscli.search.distributions import distributions
from meliuscli.search.space import SearchSpace, load_space
from meliuscli.search.storage import Journal
from meliuscli.search.study import MIN_LAG, SamplerName, Settings, Study

Other = Callable[[optuna.Study, SearchSpace], object]


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> SearchSpace:
    path = tmp_path_factory.mktemp("space") / "tiny.toml"
    path.write_text(TINY_SPACE)
    return load_space(str(path))[1]


def test_a_lock_that_a_kill_left_under_a_relative_path_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Optuna judged its age by what it links to, which from inside the folder is nowhere, and waited for ever."""
    monkeypatch.setattr(storage, "LOCK_SECONDS", 0.2)
    monkeypatch.chdir(tmp_path)
    path = Path("reports/study/journal.log")
    path.parent.mkdir(parents=True)
    path.with_name("journal.log.lock").symlink_to(path)
    started = time.monotonic()
    Journal(path).study.ask()
    assert time.monotonic() - started < 5
    assert not path.with_name("journal.log.lock").is_symlink()


def test_the_lock_of_one_who_writes_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "LOCK_SECONDS", 1.0)
    lock = tmp_path / "journal.log.lock"
    lock.symlink_to(tmp_path / "journal.log")

    def write_on() -> None:
        time.sleep(0.3)
        lock.rename(tmp_path / "gone")
        lock.symlink_to(tmp_path / "journal.log")

    writer = threading.Thread(target=write_on)
    writer.start()
    storage.drop_left_lock(tmp_path / "journal.log")
    writer.join()
    assert lock.is_symlink()


def _first(space: SearchSpace) -> dict[str, int | str]:
    return dict(zip(space.axes, space.any_candidate.params, strict=True))


def _add(params: dict[str, float], **more: object) -> Other:
    values = {name: FloatDistribution(0, 1) for name in params}
    return lambda study, _: study.add_trial(create_trial(params=params, distributions=values, **more))  # type: ignore[arg-type]


def _add_of_the_space(study: optuna.Study, space: SearchSpace) -> None:
    study.add_trial(create_trial(params=_first(space), distributions=distributions(space), values=[0.99, 1.0]))


FOREIGN: dict[str, Other] = {
    "another parameter": _add({"x": 0.5}, values=[0.7, 1e8]),
    "pruned": _add({"x": 0.5}, state=TrialState.PRUNED),
    "values of the space that were not trained": _add_of_the_space,
    "in the queue with a value that the space has not": lambda study, _: study.enqueue_trial({"groups": 7}),
    "in the queue with words": lambda study, space: study.enqueue_trial(dict.fromkeys(space.axes, "a")),
    "in the queue with another parameter": lambda study, _: study.enqueue_trial({"x": 1}),
}


@pytest.mark.parametrize("sampler", ["cost-aware", "tpe", "nsga2"])
@pytest.mark.parametrize("what", FOREIGN)
def test_trials_of_other_programs_are_left_out_and_counted(
    what: str, sampler: SamplerName, tmp_path: Path, space: SearchSpace
) -> None:
    """optuna-dashboard, `ask`, `add_trial` and `enqueue_trial` write into studies, which then did not open: exit 70."""
    settings = Settings("tiny", 10**8, 9, 0, sampler, 1, 1, MIN_LAG)
    Study(tmp_path, settings, space)
    FOREIGN[what](Journal(tmp_path / "journal.log").study, space)
    study = Study(tmp_path, settings, space)
    asked = [study._ask() for _ in range(3)]
    assert study.num_foreign == 1
    assert study.records() == []
    assert all(trial is not None and distributions(space).keys() == trial.params.keys() for trial in asked)


def test_a_parameter_that_another_program_made_of_another_kind_is_named(tmp_path: Path, space: SearchSpace) -> None:
    """Optuna keeps to the kind of values that a name had first."""
    settings = Settings("tiny", 10**8, 9, 0, "cost-aware", 1, 1, MIN_LAG)
    Study(tmp_path, settings, space)
    _add({"growth_rate": 0.5}, values=[0.7, 1e8])(Journal(tmp_path / "journal.log").study, space)
    with pytest.raises(BadInputError, match="trials of another program: Cannot set different distribution kind"):
        Study(tmp_path, settings, space)._ask()


def test_a_network_of_the_space_that_waits_is_the_next(tmp_path: Path, space: SearchSpace) -> None:
    study = Study(tmp_path, Settings("tiny", 10**8, 9, 0, "cost-aware", 1, 1, MIN_LAG), space)
    Journal(tmp_path / "journal.log").study.enqueue_trial(_first(space))
    asked = study._ask()
    assert asked is not None
    assert asked.params == _first(space)
    assert study.num_foreign == 0


def test_a_trial_that_another_program_ended_is_named(tmp_path: Path, space: SearchSpace) -> None:
    study = Study(tmp_path, Settings("tiny", 10**8, 1, 0, "random", 1, 1, MIN_LAG), space)
    trial = study._ask()
    assert trial is not None
    Journal(tmp_path / "journal.log").study.tell(trial.number, state=TrialState.FAIL)

    class Ended:
        def ended(self) -> list[tuple[int, object]]:
            from meliuscli.search.trainings import Failure

            return [(trial.number, Failure("diverged"))]

    with pytest.raises(BadInputError, match="another program ended trial"):
        study._write_down([trial], Ended())  # type: ignore[arg-type]
