"""A study begun: what is asked for, checked against the space and the data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from meliuscli.data.catalog import data_shape
from meliuscli.data.names import DEFAULT_DATASET, IMAGE_FOLDER, refuse_skip_bad
from meliuscli.errors import BadInputError, SpecError
from meliuscli.results import origin, record_text
from meliuscli.search.budget import check_budget, measure_latencies
from meliuscli.search.cost import OPS
from meliuscli.search.goal import why_no_belief
from meliuscli.search.limits import Limit, check_limits
from meliuscli.search.sampler import SamplerName, check_sampler
from meliuscli.search.settings import MIN_LAG, Settings
from meliuscli.search.space import SearchSpace, load_space
from meliuscli.search.study_data import data_facts, with_transfer
from meliuscli.training.execution import DeviceName, find_device
from meliuscli.units import format_count, format_ms
from meliuscli.work.folders import STUDY
from meliuscli.work.listener import SILENT, Listener


@dataclass(frozen=True, slots=True)
class Asked:
    """What a search is asked for. ``budgets`` are OPs, or seconds with the objective ``latency``; ``maximises`` None is
    belief where the evidence covers the space; ``max_size``, ``max_ram`` and ``max_flash`` are in bytes."""

    budgets: tuple[float, ...]
    space: str = "meliusnet"
    objective: Literal["ops", "latency"] = "ops"
    maximises: Literal["belief", "proxy"] | None = None
    max_size: float | None = None
    max_params: float | None = None
    max_ram: float | None = None
    max_flash: float | None = None
    trials: int = 20
    seed: int = 0
    sampler: SamplerName = "cost-aware"
    finalists: int = 5
    final_seeds: int = 3
    dataset: str | None = None
    data: Path | None = None
    skip_bad: bool = False
    transfer: str | None = None
    device: DeviceName = "cpu"
    lag: int | Literal["default"] | None = "default"
    """As in ``Settings``; the default follows from the number of workers."""
    trial_timeout: float | None = None


SPACE_FILE = "space.toml"


@dataclass(frozen=True, slots=True)
class Begun:
    """A study in its folder, before or between its trainings. ``origin`` is where it comes from, and ``storage`` where its
    trials are if others than this folder's search train them."""

    directory: Path
    settings: Settings
    space: SearchSpace
    origin: dict[str, Any]
    storage: str | None = None


def begin(
    asked: Asked,
    workers: int,
    reports: Path = Path("reports"),
    name: str | None = None,
    force: bool = False,
    listener: Listener = SILENT,
) -> Begun:
    """A new study in a folder of its own, which ``force`` empties first.

    Raises ``BadInputError``, ``SpecError`` or ``MissingError`` for what cannot be, before the folder is made."""
    plan = plan_study(asked, workers, listener)
    settings, made = plan.settings, plan.origin
    files = {**plan.files, STUDY.marker: record_text({"settings": asdict(settings), "origin": made})}
    default = default_name(settings.space, settings.budget, settings.objective == "latency")
    return Begun(STUDY.make(reports, name, default, force, files), settings, plan.space, made)


@dataclass(frozen=True, slots=True)
class StudyPlan:
    """What a study will be. ``files`` are those of its folder by name, the text of its space among them."""

    settings: Settings
    space: SearchSpace
    origin: dict[str, Any]
    files: dict[str, str]


def plan_study(asked: Asked, workers: int, listener: Listener = SILENT) -> StudyPlan:
    """Check what is asked for. Raises as ``begin``."""
    check_sampler(asked.sampler)
    space_name, space, text = load_space(asked.space)
    if space.proxy.seeds > 1:
        raise SpecError("proxy.seeds", "a search trains each candidate from one seed", "leave it out, or set it to 1")
    if space.proxy.teacher is not None:
        raise SpecError("proxy.teacher", "a search trains its candidates without a teacher", "leave it out")
    own_data = asked.data is not None and asked.dataset is None and space.proxy.dataset == DEFAULT_DATASET
    dataset = IMAGE_FOLDER if own_data else asked.dataset
    space = space if dataset is None else space.with_dataset(dataset)
    if space.known_outside:
        listener.talk(f"note: {', '.join(space.known_outside)}: known, but not in this space, and left out")
    lag = max(MIN_LAG, 2 * workers) if asked.lag == "default" else asked.lag
    settings, why_proxy = _settings(replace(asked, dataset=dataset), space_name, space, lag)
    settings, space = _for_own_data(settings, space, listener)
    latency = settings.objective == "latency"
    files, about = measure_latencies(space, settings, listener) if latency else ({}, {})
    if not latency:
        check_budget(space, asked.budgets[0], OPS)
        _tell_of_left_out(space, settings, listener)
    settings = with_transfer(settings, space, asked.transfer)
    refuse_skip_bad(settings.skip_bad, [space.proxy.dataset, *([settings.transfer] if settings.transfer else [])])
    if settings.limits:
        budget = Limit("--budget", OPS.of, asked.budgets[0], lambda ops: f"{format_count(ops)} OPs")
        check_limits(space, list(settings.limits) if latency else [budget, *settings.limits])
    about |= {"why_proxy": why_proxy} if why_proxy else {}
    made = {**origin(), **data_facts(space, settings, listener), **about}
    return StudyPlan(settings, space, made, {**files, SPACE_FILE: text})


def _settings(asked: Asked, name: str, space: SearchSpace, lag: int | None) -> tuple[Settings, str]:
    """The study's settings, and why it does not maximise beliefs where that was not asked for."""
    settings = Settings(
        *(name, asked.budgets[-1], asked.trials, asked.seed, asked.sampler, asked.finalists, asked.final_seeds, lag),
        data_dir=None if asked.data is None else str(asked.data.resolve()),
        objective=asked.objective,
        skip_bad=asked.skip_bad,
        dataset=asked.dataset,
        budgets=asked.budgets if len(asked.budgets) > 1 else (),
        max_size=asked.max_size,
        max_params=asked.max_params,
        max_ram=asked.max_ram,
        max_flash=asked.max_flash,
        device=find_device(asked.device),
        trial_timeout=asked.trial_timeout,
    )
    maximises, why_proxy = _choose_objective(asked.maximises, space, settings)
    return replace(settings, maximises=maximises), why_proxy


def _for_own_data(settings: Settings, space: SearchSpace, listener: Listener) -> tuple[Settings, SearchSpace]:
    """Where the user's own data are the target, the target has their classes and channels."""
    if settings.maximises == "belief" or settings.dataset is None:
        return settings, space
    shape = data_shape(settings.dataset, settings.data)
    target = space.any_candidate.spec
    if shape == (target.num_classes, target.input_channels):
        return settings, space
    classes, channels = shape
    listener.talk(f"note: the target has the {classes} classes and {channels} channel(s) of the data")
    settings = replace(settings, num_classes=classes, input_channels=channels)
    return settings, settings.adapted(space)


def _tell_of_left_out(space: SearchSpace, settings: Settings, listener: Listener) -> None:
    """Say which known networks no limit lets in."""
    limits = (Limit("--budget", OPS.of, settings.budget, OPS.text), *settings.limits)
    out = [name for name, known in space.known_candidates() if not all(limit.holds(known) for limit in limits)]
    if out:
        listener.talk(f"note: {', '.join(out)}: known, but beyond the budget or another limit, and left out")


def default_name(space: str, budget: float, latency: bool) -> str:
    """How a study's folder is called that has no name of its own."""
    return f"{space}-{format_ms(budget)}ms" if latency else f"{space}-{format_count(budget)}"


def _choose_objective(
    asked: str | None, space: SearchSpace, settings: Settings
) -> tuple[Literal["belief", "proxy"], str]:
    """What the search maximises, and why it is not the belief where that was not the user's wish.

    Raises ``BadInputError`` where beliefs are asked for and there are none."""
    if asked == "proxy":
        return "proxy", ""
    reason = why_no_belief(space)
    if reason is None and settings.data_dir is not None and asked is None:
        reason = "the target is the data of --data; --objective belief searches for ImageNet"
    if reason is None:
        return "belief", ""
    if asked == "belief":
        raise BadInputError(f"--objective belief: nothing is believed of this space: {reason}", "use --objective proxy")
    return "proxy", reason
