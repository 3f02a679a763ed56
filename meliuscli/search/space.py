"""A search space: which networks are candidates, what each costs, and how a proxy of it is trained. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from meliuscli.arch.adapt import as_proxy, at_input
from meliuscli.arch.families import FAMILIES, family_class
from meliuscli.arch.spec import ArchSpec, read_toml, validate
from meliuscli.arch.zoo import load_name, spec_from_fields, zoo_table
from meliuscli.counting.analytic import count_spec
from meliuscli.counting.conventions import MELIUS
from meliuscli.counting.counts import Count
from meliuscli.data.names import SHAPES, check_dataset_name
from meliuscli.errors import SpecError, unknown_name
from meliuscli.search.axis import Axis, Value, axes_by_name, check_word, fields_of, read_axes
from meliuscli.search.files import space_names, spaces_directory
from meliuscli.search.ways import Final, Proxy, Transfer

Params = tuple[Value, ...]
"""One value for each axis of a space, in the axes' order."""


TABLES = ("target", "parameters", "proxy", "final")
TASK = ("num_classes", "input_channels")
"""Fields that say what is to be learned, which no search changes."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A network of the space and what it costs at the target input."""

    params: Params
    spec: ArchSpec
    archid: str
    count: Count
    ops: float


class SearchSpace(BaseModel):
    """A search-space file (``search_spaces/*.toml``), validated."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    family: str
    known: tuple[str, ...] = ()
    target: dict[str, Any]
    parameters: dict[str, Axis | tuple[Axis, ...]]
    proxy: Proxy
    final: Final
    transfer: Transfer = Field(default_factory=Transfer)

    @field_validator("parameters", mode="before")
    @classmethod
    def _read_parameters(cls, parameters: Any) -> Any:
        if not isinstance(parameters, dict):
            return parameters
        return {key: read_axes(f"parameters.{key}", value) for key, value in parameters.items()}

    @model_validator(mode="after")
    def _fits_family(self) -> Self:
        if self.family not in FAMILIES:
            raise unknown_name("family", self.family, FAMILIES, "family")
        fields = family_class(self.family).model_fields
        for where, keys in (("target", self.target), ("parameters", self.parameters)):
            for key in keys:
                if key not in fields:
                    raise SpecError(
                        f"{where}.{key}", f"{self.family} has no such field", f"fields: {', '.join(fields)}"
                    )
        for key in TASK:
            if key in self.parameters:
                raise SpecError(f"parameters.{key}", "is the same for all candidates", "put it into [target]")
        if both := set(self.target) & set(self.parameters):
            raise SpecError(f"parameters.{min(both)}", "is in [target] too")
        for name in self.known:
            if name not in zoo_table():
                raise unknown_name("network", name, zoo_table(), "known")
        self._check_words()
        self.check_way(self.proxy, *SHAPES.get(self.proxy.dataset, (10, 3)))
        return self

    def _check_words(self) -> None:
        """Raise ``SpecError`` where a word is none that its field takes: no candidate would ever have it."""
        fields = family_class(self.family).model_fields
        for key, axis in self.parameters.items():
            for word in axis.values if isinstance(axis, Axis) and axis.is_words else ():
                check_word(f"parameters.{key}.choices", word, fields[key].annotation)

    def check_way(self, way: Proxy | Transfer, num_classes: int, input_channels: int) -> None:
        """Raise ``SpecError`` where candidates have no copy that can be trained in this way: one candidate, changed in
        one parameter at a time. Whether a map becomes too small does not depend on the number of classes."""
        params = self.any_candidate.params
        for index, axis in enumerate(self.axes.values()):
            for value in axis.corners:
                candidate = self.try_candidate((*params[:index], value, *params[index + 1 :]))
                if candidate is not None:
                    as_proxy(candidate.spec, num_classes, input_channels, way.input_size, way.width_divisor)

    @cached_property
    def axes(self) -> dict[str, Axis]:
        """``num_blocks.1`` or ``growth_rate`` -> its values; the order of ``Params``."""
        return axes_by_name(self.parameters)

    @property
    def size(self) -> int:
        """How many combinations of values there are."""
        return math.prod(len(axis.values) for axis in self.axes.values())

    def candidate(self, params: Params) -> Candidate:
        """The network of these parameters, counted. Raises ``SpecError`` where it cannot exist."""
        spec = spec_from_fields({"family": self.family, **self.target, **fields_of(self.axes, params)})
        count = count_spec(spec).total
        ops = MELIUS.derive(count).ops
        assert ops is not None
        return Candidate(params, spec, spec.archid, count, ops)

    def params_of(self, spec: ArchSpec) -> Params | None:
        """The parameters that give ``spec``, or None when it is not in this space."""
        found = []
        for name, axis in self.axes.items():
            key, _, index = name.partition(".")
            value = getattr(spec, key, None)
            if isinstance(value, tuple):
                if index and len(value) < int(index):
                    return None
                value = value[int(index) - 1] if index else value[0]
            if value not in axis.values:
                return None
            found.append(value)
        candidate = self.try_candidate(tuple(found))
        return candidate.params if candidate is not None and candidate.archid == spec.archid else None

    def known_candidates(self) -> Iterator[tuple[str, Candidate]]:
        """The known networks that are in this space, moved to the target's classes, channels and input size."""
        for name in self.known:
            spec = self._at_target(load_name(name))
            if spec is not None and (params := self.params_of(spec)) is not None:
                yield name, self.candidate(params)

    @property
    def known_outside(self) -> tuple[str, ...]:
        """The known networks that are not in this space: of another family, or of values that it does not have."""
        inside = {name for name, _ in self.known_candidates()}
        return tuple(name for name in self.known if name not in inside)

    def _at_target(self, spec: ArchSpec) -> ArchSpec | None:
        """A published network for the target's task and input, or None where the input is too small for it."""
        shape = (self.target.get(key, getattr(spec, key)) for key in (*TASK, "input_size"))
        try:
            return at_input(spec, *shape)
        except SpecError:
            return None

    def with_dataset(self, name: str) -> Self:
        """The same space with a proxy on other data. Raises ``BadInputError`` for an unknown name."""
        check_dataset_name(name)
        return self.model_copy(update={"proxy": self.proxy.model_copy(update={"dataset": name})})

    def with_task(self, num_classes: int, input_channels: int) -> Self:
        """The same space for another target of its input size. Raises ``SpecError`` where it has no network for it."""
        target = {**self.target, "num_classes": num_classes, "input_channels": input_channels}
        changed = self.model_copy(update={"target": target})
        for counted in ("any_candidate", "smallest"):  # a copy has what was cached
            changed.__dict__.pop(counted, None)
        _ = changed.any_candidate  # raises
        return changed

    def random_params(self, rng: np.random.Generator) -> Params:
        return tuple(axis.values[rng.integers(len(axis.values))] for axis in self.axes.values())

    def mutate(self, params: Params, rng: np.random.Generator) -> Params:
        """One or two parameters moved to a neighbouring value."""
        moved, axes = list(params), list(self.axes.values())
        for index in rng.choice(len(axes), size=min(len(axes), int(rng.integers(1, 3))), replace=False):
            values = axes[index].values
            at = values.index(moved[index]) + int(rng.choice((-1, 1)))
            moved[index] = values[min(max(at, 0), len(values) - 1)]
        return tuple(moved)

    @cached_property
    def smallest(self) -> Candidate:
        """The candidate with the fewest OPs, found by changing one parameter at a time for as long as that helps.

        Exact where OPs rise or fall with each parameter, whatever the others, as in the families here.
        Raises ``SpecError`` when no candidate can be found at all."""
        best = self.any_candidate
        improved = True
        while improved:
            improved = False
            for index, axis in enumerate(self.axes.values()):
                for value in axis.values:
                    other = self.try_candidate((*best.params[:index], value, *best.params[index + 1 :]))
                    if other is not None and other.ops < best.ops:
                        best, improved = other, True
        return best

    @cached_property
    def any_candidate(self) -> Candidate:
        """Some candidate, whatever it costs. Raises ``SpecError`` when none can be found."""
        rng = np.random.default_rng(0)
        first = tuple(axis.values[0] for axis in self.axes.values())
        for params in (first, *(self.random_params(rng) for _ in range(500))):
            if (found := self.try_candidate(params)) is not None:
                return found
        try:
            return self.candidate(first)
        except SpecError as error:
            raise SpecError("parameters", f"no values give a network: {error.message}", error.hint) from None

    def try_candidate(self, params: Params) -> Candidate | None:
        """The candidate, or None where these parameters give no network."""
        try:
            return self.candidate(params)
        except SpecError:
            return None


def load_space(name_or_path: str) -> tuple[str, SearchSpace, str]:
    """A space by name (``meliusnet``) or file: its name, the space, and its TOML text.

    Raises ``BadInputError`` for an unknown name or malformed file, ``SpecError`` for a space that cannot be."""
    path = Path(name_or_path)
    if path.suffix.lower() != ".toml" and not path.is_file():
        if name_or_path not in space_names():
            raise unknown_name("search space", name_or_path, space_names())
        path = spaces_directory() / f"{name_or_path}.toml"
    fields = dict(read_toml(path))
    if missing := [key for key in TABLES if key not in fields]:
        raise SpecError(
            f"{path.name}: {missing[0]}",
            "missing",
            f"a search space has the tables {', '.join(TABLES)}; a network's file none",
        )
    space = validate(SearchSpace, fields, f"{path.name}: ")
    return path.stem, space, path.read_text(encoding="utf-8")


def params_from_mapping(space: SearchSpace, values: Mapping[str, Any]) -> Params:
    """Optuna's parameters (by axis name) as ``Params``."""
    return tuple(values[name] for name in space.axes)
