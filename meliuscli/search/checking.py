"""A check of proxies begun, gone on with and trained: what is asked for, held against what was made before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from meliuscli.data.decoding import prepare_and_tell
from meliuscli.data.names import refuse_skip_bad
from meliuscli.errors import BadInputError, InterruptedByUser
from meliuscli.results import origin, record_text, write_text
from meliuscli.search.check import Check, DataFacts, as_trained, read_check, read_data, sample
from meliuscli.search.plan import Against, Changes, CheckPlan, make_plan, read_changes
from meliuscli.search.space import Candidate, SearchSpace, load_space
from meliuscli.search.targets import published_networks
from meliuscli.training.execution import DeviceName, find_device
from meliuscli.training.recipe import Recipe
from meliuscli.units import format_count
from meliuscli.work.folders import CHECK
from meliuscli.work.listener import SILENT, Listener
from meliuscli.work.sameness import other_data, other_option, went_on, with_option

SPACE_FILE, CHANGES_FILE = "space.toml", "check.toml"
"""Copies of what a check was given, in its folder."""
NUM_NETWORKS = 24
FRACTIONS = (0.25, 0.5)


@dataclass(frozen=True, slots=True)
class AskedCheck:
    """What a check is asked for; None is what the space, or a default, says. ``budget`` is in OPs at the target input,
    ``changes`` a TOML file of ways of training."""

    space: str = "meliusnet"
    networks: int | None = None
    budget: int | None = None
    changes: Path | None = None
    long: Recipe | None = None
    long_epochs: float | None = None
    long_dataset: str | None = None
    against: Against = "long"
    device: DeviceName = "cpu"
    data: Path | None = None
    skip_bad: bool = False
    fractions: tuple[float, ...] | None = None
    seed: int = 0


ONLY_SAMPLED = {
    "networks": "--networks",
    "budget": "--budget",
    "long": "--long",
    "long_epochs": "--long-epochs",
    "long_dataset": "--long-dataset",
    "fractions": "--at-fraction",
}
"""What a check against published results would pass over, with its option."""
OPTIONS_OF = {
    "networks": "--networks",
    "budget": "--budget",
    "seed": "--seed",
    "fractions": "--at-fraction",
    "long.dataset": "--long-dataset",
    "long.recipe.epochs": "--long-epochs",
    "skip_bad": "--skip-bad",
    "against": "--against",
    "device": "--device",
}
"""The options that set one key of a plan."""


def begin_check(
    asked: AskedCheck,
    reports: Path = Path("reports"),
    name: str | None = None,
    force: bool = False,
    listener: Listener = SILENT,
) -> Check:
    """A new check in a folder of its own, which ``force`` empties first.

    Raises ``BadInputError``, ``SpecError`` or ``MissingError`` for what cannot be, before the folder is made."""
    refuse_sampling(asked)
    space_name, space, text = load_space(asked.space)
    plan = _plan(asked, space_name, space)
    refuse_skip_bad(asked.skip_bad, [way.dataset for way in plan.ways.values()])
    facts = read_data(plan, partial(prepare_and_tell, listener=listener))
    chosen = published_networks() if asked.against == "published" else sample(space, plan, facts)
    _require_trainable(chosen, plan, facts)
    check = Check(Path(), plan, facts, chosen, origin())
    files = {SPACE_FILE: text, **_copied(asked.changes), CHECK.marker: record_text(check.content())}
    directory = CHECK.make(reports, name, default_check_name(asked.against, space_name), force, files)
    return replace(check, directory=directory)


def go_on_check(directory: Path, given: Mapping[str, Any], listener: Listener = SILENT) -> Check:
    """The check as it was left, with more proxies if asked. ``given`` are the values of an ``AskedCheck`` that are asked
    for anew. The folder is held.

    Raises ``BadInputError`` where its files are corrupt, where its data are others, and for another value of anything but
    where the data are."""
    name, space, _ = load_space(given.get("space", str(directory / SPACE_FILE)))
    left = read_check(directory, space)
    plan = _plan_again(left, space, {**given, "space": name if "space" in given else left.plan.space})
    if (difference := plan.differs_from(left.plan)) is not None:
        key, begun = difference
        option = OPTIONS_OF.get(key, key)
        raise other_option(CHECK, directory, option, with_option(option, begun))
    facts = read_data(plan, partial(prepare_and_tell, listener=listener))
    for dataset, then in left.data.items():
        now = facts[dataset]
        if (now.digest, now.left_out) != (then.digest, then.left_out):
            raise other_data(CHECK, directory, dataset)
    _require_trainable(left.networks, plan, facts)
    for file, content in _copied(given.get("changes")).items():
        write_text(directory / file, content)
    went = went_on(CHECK, directory, left.origin, listener)
    return Check(directory, plan, facts, left.networks, went, left.trainings)


def conduct_check(check: Check, workers: int, listener: Listener = SILENT) -> None:
    """Train what is left. The folder is held. Raises ``InterruptedByUser`` with what is kept and how to go on."""
    asked = check.asked()
    done = sum(check.outcome(training) is not None for training in asked)
    check.save()
    try:
        with listener.stage("training", len(asked), done) as steps:
            for training, outcome in check.run(workers):
                done += 1
                what = f"{training.way}, seed {training.seed}: {training.candidate.spec.summary()}"
                score = outcome.get("reason") or f"{100 * outcome['validation_top1']:.2f} %"
                steps.step(f"{what}, {format_count(training.candidate.ops)} OPs: {score}")
    except KeyboardInterrupt:
        kept = f"interrupted; {done} of {len(asked)} trainings are kept in {check.directory}"
        raise InterruptedByUser(kept, f"continue with: {CHECK.resume_command(check.directory)}") from None


def default_check_name(against: str, space: str) -> str:
    """How a check's folder is called that has no name of its own."""
    return f"check-{space}" if against == "long" else "proxy-imagenet"


def refuse_sampling(asked: AskedCheck) -> None:
    """Raise ``BadInputError`` for what samples or trains long, in a check against published results."""
    given = [option for field, option in ONLY_SAMPLED.items() if getattr(asked, field) is not None]
    if asked.against == "published" and given:
        raise BadInputError(
            f"{', '.join(given)}: nothing is sampled or trained long against published results", "leave it out"
        )


def _plan(asked: AskedCheck, space_name: str, space: SearchSpace) -> CheckPlan:
    published = asked.against == "published"
    return make_plan(
        space_name,
        space,
        Changes() if asked.changes is None else read_changes(asked.changes),
        networks=len(published_networks()) if published else asked.networks or NUM_NETWORKS,
        budget=asked.budget,
        seed=asked.seed,
        long_recipe=asked.long,
        long_epochs=asked.long_epochs,
        long_dataset=asked.long_dataset,
        fractions=FRACTIONS if asked.fractions is None else asked.fractions,
        data_dir=asked.data,
        skip_bad=asked.skip_bad,
        against=asked.against,
        device=find_device(asked.device),
    )


def _plan_again(left: Check, space: SearchSpace, given: Mapping[str, Any]) -> CheckPlan:
    """The plan of a check that goes on: what is given anew, else as it was begun."""
    made, copy = left.plan, left.directory / CHANGES_FILE
    as_begun = {
        name: getattr(made, name) for name in ("networks", "budget", "against", "fractions", "seed", "skip_bad")
    }
    if given.get("against", made.against) == "published":  # which has none of these
        as_begun |= dict.fromkeys(("networks", "budget", "fractions"))
    as_begun["changes"] = copy if copy.is_file() else None
    as_begun["data"] = None if made.data_dir is None else Path(made.data_dir)
    known = {field.name for field in fields(AskedCheck)}
    asked = AskedCheck(**{**as_begun, **{key: value for key, value in given.items() if key in known}})
    refuse_sampling(asked)
    plan = _plan(asked, asked.space, space)
    # As they were written down: a device by its name, a directory as relative as it was.
    as_written = {
        key: getattr(made, key) for key, of in (("device", "device"), ("data_dir", "data")) if of not in given
    }
    # The long training is as it was begun, unless something that is given says what it should be.
    again = {"long", "long_epochs", "long_dataset"} & given.keys()
    if given.get("changes") is not None and read_changes(given["changes"]).long:
        again.add("changes")
    return plan.model_copy(update={**as_written, **({} if again else {"long": made.long})})


def _copied(changes: Path | None) -> dict[str, str]:
    return {} if changes is None else {CHANGES_FILE: changes.read_text(encoding="utf-8-sig")}


def _require_trainable(networks: tuple[Candidate, ...], plan: CheckPlan, facts: Mapping[str, DataFacts]) -> None:
    """Raise ``SpecError`` for a network, or a teacher, that cannot exist in a way of training."""
    for way in plan.ways.values():
        data = facts[way.dataset]
        way.teacher_spec(data.num_classes, data.channels)
        for candidate in networks:
            as_trained(candidate.spec, way, data)
