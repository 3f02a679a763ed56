"""A study gone on with: as it was left, with what is asked for anew, and held against what it was made with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from meliuscli.results import read_record, write_record
from meliuscli.search.begin import SPACE_FILE, Begun, default_name
from meliuscli.search.settings import Settings
from meliuscli.search.space import load_space
from meliuscli.search.study_data import data_facts, with_transfer
from meliuscli.work.folders import STUDY
from meliuscli.work.listener import SILENT, Listener
from meliuscli.work.sameness import other_data, other_option, went_on, with_option


def reopen(directory: Path) -> Begun:
    """A study as it was left. Raises ``BadInputError`` where its settings are gone or corrupt."""
    path = directory / STUDY.marker
    with STUDY.reading(path):
        stored = read_record(path)
        settings, made = TypeAdapter(Settings).validate_python(stored["settings"]), dict(stored["origin"])
        _ = made["command"], made["time"], made["dataset"], made["versions"], made["machine"]
    _, space, _ = load_space(str(directory / SPACE_FILE))
    return Begun(directory, settings, settings.adapted(space), made, stored.get("storage"))


def go_on(left: Begun, listener: Listener = SILENT) -> Begun:
    """The study with the settings of ``left``, written down, when its data are what they were. Its folder is held."""
    now = data_facts(left.space, left.settings, listener)
    made = _checked_origin(left.directory, left.origin, now, listener)
    write_record(left.directory / STUDY.marker, {"settings": asdict(left.settings), "origin": made})
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
        if (
            name == "data" and settings.data is not None
        ):  # which may have moved: their digest says whether they are the same
            settings = replace(settings, data_dir=str(value.resolve()))
            continue
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


def _checked_origin(directory: Path, made: dict[str, Any], now: dict[str, Any], listener: Listener) -> dict[str, Any]:
    """The origin that the study was made with; other data are refused, other versions noted."""
    for use in ("dataset", "transfer"):
        if use in made and made[use] != now.get(use):
            raise other_data(STUDY, directory, made[use]["name"])
    made = {**made, **({"transfer": now["transfer"]} if "transfer" in now else {})}
    return went_on(STUDY, directory, made, listener)
