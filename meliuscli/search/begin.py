"""A study begun or gone on with: what is asked for, checked against the space, the data and what was made before."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from meliuscli.data.batches import num_left_out
from meliuscli.data.catalog import load_dataset
from meliuscli.data.decoding import prepare_and_tell
from meliuscli.data.folder import ImageFolder
from meliuscli.data.names import DATASETS, DEFAULT_DATASET, IMAGE_FOLDER
from meliuscli.data.splits import Cut
from meliuscli.errors import BadInputError, MissingError, SpecError
from meliuscli.results import json_text, origin, write_json
from meliuscli.search.budget import check_budget, measure_latencies
from meliuscli.search.cost import OPS
from meliuscli.search.goal import why_no_belief
from meliuscli.search.limits import Limit, check_limits
from meliuscli.search.sampler import SamplerName, check_sampler
from meliuscli.search.settings import MIN_LAG, Settings
from meliuscli.search.space import SearchSpace, load_space
from meliuscli.training.execution import DeviceName, find_device
from meliuscli.units import format_count, format_ms
from meliuscli.work.folders import STUDY
from meliuscli.work.listener import SILENT, Listener
from meliuscli.work.sameness import other_data, other_option, went_on, with_option


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
    files = {**plan.files, STUDY.marker: json_text({"settings": asdict(settings), "origin": made})}
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
    own_data = asked.data is not None and asked.dataset is None and space.proxy.dataset == DEFAULT_DATASET
    dataset = IMAGE_FOLDER if own_data else asked.dataset
    space = space if dataset is None else space.with_dataset(dataset)
    if space.known_outside:
        listener.talk(f"note: {', '.join(space.known_outside)}: known, but not in this space, and left out")
    lag = max(MIN_LAG, 2 * workers) if asked.lag == "default" else asked.lag
    settings, why_proxy = _settings(replace(asked, dataset=dataset), space_name, space, lag)
    latency = settings.objective == "latency"
    files, about = measure_latencies(space, settings, listener) if latency else ({}, {})
    if not latency:
        check_budget(space, asked.budgets[0], OPS)
    settings = with_transfer(settings, space, asked.transfer)
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


def reopen(directory: Path) -> Begun:
    """A study as it was left. Raises ``BadInputError`` where its settings are gone or corrupt."""
    path = directory / STUDY.marker
    with STUDY.reading(path):
        stored = json.loads(path.read_text(encoding="utf-8"))
        settings, made = TypeAdapter(Settings).validate_python(stored["settings"]), dict(stored["origin"])
        _ = made["command"], made["time"], made["dataset"], made["versions"], made["machine"]
    _, space, _ = load_space(str(directory / SPACE_FILE))
    if settings.dataset is not None:
        space = space.with_dataset(settings.dataset)
    return Begun(directory, settings, space, made, stored.get("storage"))


def go_on(left: Begun, listener: Listener = SILENT) -> Begun:
    """The study with the settings of ``left``, written down, when its data are what they were. Its folder is held."""
    now = data_facts(left.space, left.settings, listener)
    made = _checked_origin(left.directory, left.origin, now, listener)
    write_json(left.directory / STUDY.marker, {"settings": asdict(left.settings), "origin": made})
    return replace(left, origin=made)


def with_given(left: Begun, given: Mapping[str, Any]) -> Begun:
    """The study with more trials, or with data to transfer to, if asked. ``given`` are the values of an ``Asked`` that are
    asked for anew. Raises ``BadInputError`` for another value of anything else."""
    directory, settings = left.directory, left.settings
    made_with = {
        "budgets": settings.all_budgets,
        "space": settings.space,
        "data": settings.data,
        **{name: getattr(settings, name) for name in AS_BEGUN},
    }
    for name, value in given.items():
        if name in ("trials", "transfer"):
            continue
        if name == "data":
            raise other_option(STUDY, directory, "--data", "with its own --data")
        made = made_with[name]
        if value != made:
            raise other_option(STUDY, directory, _option(name), _as_option(name, made, settings))
    if (trials := given.get("trials", settings.trials)) < settings.trials:
        raise other_option(STUDY, directory, "--trials", f"with --trials {settings.trials}")
    settings = with_transfer(replace(settings, trials=trials), left.space, given.get("transfer"), directory)
    return replace(left, settings=settings)


BOUNDS = ("max_size", "max_params", "max_ram", "max_flash")
AS_BEGUN = (
    *("objective", "maximises", "seed", "sampler", "finalists", "final_seeds", "dataset", "skip_bad", "device", "lag"),
    *BOUNDS,
)
"""Settings that never change."""
OPTIONS = {"budgets": "--budget", "maximises": "--objective", "objective": "--objectives"}


def _option(name: str) -> str:
    return OPTIONS.get(name, f"--{name.replace('_', '-')}")


def _as_option(name: str, made: Any, settings: Settings) -> str:
    """With, or without, which option a study was made."""
    option = _option(name)
    if name == "lag":
        return f"with --lag {'none' if made is None else made}"
    if name in BOUNDS and made is not None:
        return f"with its own {option}"
    latency = settings.objective == "latency"
    if name == "budgets":
        made = ",".join(default_name("", budget, latency).removeprefix("-") for budget in made)
    return with_option(option, f"accuracy,{made}" if name == "objective" else made)


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


def with_transfer(settings: Settings, space: SearchSpace, asked: str | None, made: Path | None = None) -> Settings:
    """The settings with the data of ``--transfer``, checked before anything is trained. A study that was ``made`` without
    may be given some, but no others."""
    if asked is None:
        return settings
    name, _, place = asked.partition(":")
    if not asked:
        raise BadInputError("--transfer: names nothing", f"a directory of images, or one of {', '.join(DATASETS)}")
    if name not in DATASETS:
        if not Path(asked).is_dir():
            raise MissingError(
                f"--transfer {asked}: neither a data set nor a directory", f"data sets: {', '.join(DATASETS)}"
            )
        name, place = IMAGE_FOLDER, asked
    directory = str(Path(place).resolve()) if place else None
    if (name, directory) == (settings.transfer, settings.transfer_dir):
        return settings
    if settings.transfer is not None and made is not None:
        raise other_option(STUDY, made, "--transfer", f"with --transfer {settings.transfer_dir or settings.transfer}")
    if (name, directory) == (space.proxy.dataset, settings.data_dir):
        raise BadInputError(f"--transfer {asked}: the search itself uses these data", "name others")
    try:
        data = load_dataset(
            name, None if directory is None else Path(directory), space.transfer.recipe.cut, settings.skip_bad
        )
    except MissingError as error:
        raise MissingError(
            f"--transfer {asked}: {error.message}", f"--transfer {name}:DIR names its directory"
        ) from None
    space.check_way(space.transfer, data.num_classes, data.channels)
    return replace(settings, transfer=name, transfer_dir=directory)


def data_facts(space: SearchSpace, settings: Settings, listener: Listener) -> dict[str, Any]:
    """What the origin says of the proxy's data, and of those of ``--transfer`` where there are some."""
    cuts = (space.proxy.recipe.cut, space.final.recipe.cut)
    skip_bad, way = settings.skip_bad, space.transfer
    facts = {"dataset": _facts(space.proxy.dataset, settings.data, cuts, space.proxy.input_size, skip_bad, listener)}
    if settings.transfer is not None:
        place, cut = settings.transfer_data, way.recipe.cut
        facts["transfer"] = _facts(settings.transfer, place, (cut,), way.input_size, skip_bad, listener)
    return facts


def _facts(
    dataset: str, place: Path | None, cuts: tuple[Cut, ...], input_size: int, skip_bad: bool, listener: Listener
) -> dict[str, str | int]:
    """Name and digest of data, and how many files were left out, where they may be. Image folders are decoded here,
    once: the workers then find them in memory-mapped files."""
    digests, left_out = [], dict[str, int]()
    for cut in dict.fromkeys(cuts):
        loaded = load_dataset(dataset, place, cut, skip_bad)
        if isinstance(loaded, ImageFolder):
            prepared = prepare_and_tell(loaded, input_size, listener)
            left_out = {"left_out": num_left_out(loaded, prepared)} if skip_bad else {}
        digests.append(loaded.digest)
    return {"name": dataset, "digest": "-".join(digests), **left_out}


def _checked_origin(directory: Path, made: dict[str, Any], now: dict[str, Any], listener: Listener) -> dict[str, Any]:
    """The origin that the study was made with; other data are refused, other versions noted."""
    for use in ("dataset", "transfer"):
        if use in made and made[use] != now.get(use):
            raise other_data(STUDY, directory, made[use]["name"])
    made = {**made, **({"transfer": now["transfer"]} if "transfer" in now else {})}
    return went_on(STUDY, directory, made, listener)
