"""The plan of a check of proxies: what is trained long, and in which cheaper ways. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from meliuscli.arch.spec import read_toml, validate
from meliuscli.data.names import check_dataset_name
from meliuscli.errors import BadInputError, SpecError
from meliuscli.search.space import Proxy, SearchSpace
from meliuscli.training.recipe import Recipe

OWN, LONG = "proxy", "long"
"""The names of the space's own proxy and of the long training."""
LONGER = 4
"""Where nobody says how long the long training is: so many times as long as the space's own proxy."""

Fraction = Annotated[float, Field(gt=0, lt=1)]


class Plan(BaseModel):
    """All that a check depends on. ``proxies`` holds the ways of training to be checked, the space's own first;
    ``fractions`` are the points of the long training at which its own curve is read as a proxy."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    space: str
    networks: Annotated[int, Field(ge=4)]
    budget: int | None
    seed: int
    long: Proxy
    proxies: dict[str, Proxy]
    fractions: tuple[Fraction, ...]
    data_dir: str | None = None

    @property
    def ways(self) -> dict[str, Proxy]:
        """Every way of training by name."""
        return {**self.proxies, LONG: self.long}

    @property
    def long_seeds(self) -> tuple[int, int]:
        """Proxies are trained from ``seed``; these are others, so that no score shares its first weights with them."""
        return self.seed + 1, self.seed + 2

    def differs_from(self, other: Plan) -> str | None:
        """The first setting in which this plan is not ``other`` with, at most, more proxies and data that lie elsewhere;
        None if there is none."""
        for name in type(self).model_fields.keys() - {"data_dir"}:
            mine, theirs = getattr(self, name), getattr(other, name)
            if name == "proxies":
                mine = {way: mine.get(way) for way in theirs}
            if mine != theirs:
                return name
        return None


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


def long_way(space: SearchSpace, changes: Changes, recipe: Recipe | None, epochs: float | None) -> Proxy:
    """The long training: the space's proxy with its final recipe, or ``recipe``, and what is changed.

    Without any word on its length it is the longer of the final's and ``LONGER`` times the proxy's."""
    base = space.proxy.model_copy(update={"recipe": recipe or space.final.recipe})
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


def checked_fractions(fractions: tuple[float, ...]) -> tuple[float, ...]:
    """Sorted, each once. Raises ``BadInputError`` unless all lie between 0 and 1."""
    for fraction in fractions:
        if not 0 < fraction < 1:
            raise BadInputError(f"--at-fraction {fraction:g}: must lie between 0 and 1")
    return tuple(sorted(set(fractions)))
