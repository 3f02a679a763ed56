"""The plan of a check of proxies: what is trained long, and in which cheaper ways. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from meliuscli.arch.spec import read_toml, validate
from meliuscli.data.names import DEFAULT_DATASET, check_dataset_name
from meliuscli.errors import BadInputError, SpecError
from meliuscli.search.space import SearchSpace
from meliuscli.search.ways import Proxy
from meliuscli.training.recipe import Recipe

OWN, LONG = "proxy", "long"
"""The names of the space's own proxy and of the long training."""
LONGER = 4
"""Where nobody says how long the long training is: so many times as long as the space's own proxy."""

Fraction = Annotated[float, Field(gt=0, lt=1)]
Against = Literal["long", "published"]


class CheckPlan(BaseModel):
    """All that a check depends on. ``proxies`` holds the ways of training to be checked, the space's own first;
    ``fractions`` are the points of the long training at which its own curve is read as a proxy. A check ``against``
    published results trains nothing long, and its networks are those with results."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    space: str
    networks: Annotated[int, Field(ge=4)]
    budget: int | None
    seed: int
    fractions: tuple[Fraction, ...]
    long: Proxy
    proxies: dict[str, Proxy]
    data_dir: str | None = None
    skip_bad: bool = False
    against: Against = "long"
    device: str = "cpu"

    @property
    def ways(self) -> dict[str, Proxy]:
        """Every way of training by name."""
        return {**self.proxies, LONG: self.long} if self.against == "long" else self.proxies

    @property
    def long_seeds(self) -> tuple[int, int]:
        """Proxies are trained from ``seed``; these are others, so that no score shares its first weights with them."""
        return self.seed + 1, self.seed + 2

    def seeds_of(self, way: str) -> tuple[int, ...]:
        """The seeds that networks are trained from in a way."""
        if way == LONG:
            return self.long_seeds
        after = self.seed + (3 if self.against == "long" else 1)  # the long ones lie between
        return self.seed, *range(after, after + self.proxies[way].seeds - 1)

    def differs_from(self, other: CheckPlan) -> tuple[str, Any] | None:
        """The first setting in which this plan is not ``other`` with, at most, more proxies and data that lie elsewhere, and
        its value in ``other``; None if there is none."""
        kept = self.model_copy(update={"data_dir": other.data_dir})
        kept = kept.model_copy(
            update={"proxies": {name: way for name, way in self.proxies.items() if name in other.proxies}}
        )
        mine, theirs = (_flat(plan.model_dump(mode="json")) for plan in (kept, other))
        keys = [key for key in {**theirs, **mine} if mine.get(key) != theirs.get(key)]
        return (keys[0], theirs.get(keys[0])) if keys else None


def _flat(fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Tables in tables as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in fields.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


class Changes(BaseModel):
    """A check file: what differs from the space's ``[proxy]`` and ``[final.recipe]``, table by table."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    long: dict[str, Any] = {}
    proxies: dict[str, dict[str, Any]] = {}


def read_changes(path: Path) -> Changes:
    """A check file. Raises ``BadInputError`` for one that is missing or malformed, ``SpecError`` naming a bad key."""
    changes = validate(Changes, dict(read_toml(path)), f"{path.name}: ")
    for name in changes.proxies:
        if name in (OWN, LONG):
            raise SpecError(f"{path.name}: proxies.{name}", "this name is taken", "give it another")
    return changes


def make_plan(
    name: str,
    space: SearchSpace,
    changes: Changes,
    *,
    networks: int = 24,
    budget: int | None = None,
    seed: int = 0,
    long_recipe: Recipe | None = None,
    long_epochs: float | None = None,
    long_dataset: str | None = None,
    fractions: Sequence[float] = (0.25, 0.5),
    data_dir: Path | None = None,
    skip_bad: bool = False,
    against: Against = "long",
    device: str = "cpu",
) -> CheckPlan:
    """The plan of a check of ``space``. Raises ``SpecError`` or ``BadInputError`` naming what cannot be."""
    points = _points(fractions)
    long = long_way(space, changes, long_recipe, long_epochs)
    if long_dataset is not None:
        long = changed(long, {"dataset": long_dataset}, LONG)
    plan = CheckPlan(
        space=name,
        networks=networks,
        budget=budget,
        seed=seed,
        # So that the curve has a point at each fraction.
        long=changed(long, {"recipe": {"validate_at": points}}, LONG),
        proxies={OWN: space.proxy}
        | {key: changed(space.proxy, fields, f"proxies.{key}") for key, fields in changes.proxies.items()},
        fractions=points,
        data_dir=None if data_dir is None else str(data_dir.resolve()),
        skip_bad=skip_bad,
        against=against,
        device=device,
    )
    _require_one_place(plan)
    return plan


def _points(fractions: Sequence[float]) -> tuple[float, ...]:
    for fraction in fractions:
        if not 0 < fraction < 1:
            raise BadInputError(f"--at-fraction {fraction:g}: must lie between 0 and 1")
    return tuple(sorted(set(fractions)))


def _require_one_place(plan: CheckPlan) -> None:
    """Raise ``BadInputError`` where one directory is to hold several data sets, or none."""
    outside = [
        dataset for dataset in dict.fromkeys(way.dataset for way in plan.ways.values()) if dataset != DEFAULT_DATASET
    ]
    if plan.data_dir is not None and len(outside) != 1:
        read = ", ".join(outside) or "only the embedded data set"
        raise BadInputError(
            f"--data names the directory of one data set; this check reads {read}",
            "$MELIUSCLI_DATA names a directory with one of each name" if outside else "leave it out",
        )


def long_way(space: SearchSpace, changes: Changes, recipe: Recipe | None, epochs: float | None) -> Proxy:
    """The long training: the space's proxy with its final recipe, or ``recipe``, and what is changed.

    Without any word on its length it is the longer of the final's and ``LONGER`` times the proxy's."""
    base = space.proxy.model_copy(update={"recipe": recipe or space.final.recipe, "teacher": None})
    fields = dict(changes.long)
    own = fields.get("recipe", {})
    if epochs is not None:
        fields["recipe"] = {**own, "epochs": epochs}
    elif recipe is None and "epochs" not in own:
        fields["recipe"] = {**own, "epochs": max(base.recipe.epochs, LONGER * space.proxy.recipe.epochs)}
    return changed(base, fields, "long")


def changed(way: Proxy, fields: dict[str, Any], where: str) -> Proxy:
    """A way of training with some fields changed, those of its recipe one by one.

    Raises ``SpecError`` naming the field, ``BadInputError`` for an unknown data set."""
    recipe = fields.get("recipe", {})
    if not isinstance(recipe, dict):
        raise SpecError(f"{where}.recipe", f"must be a table of a recipe's fields, not {recipe!r}")
    merged = {**way.model_dump(), **fields, "recipe": {**way.recipe.model_dump(), **recipe}}
    made = validate(Proxy, merged, f"{where}.")
    check_dataset_name(made.dataset)
    return made
