"""One parameter of a search space: the values that it may take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator

from meliuscli.arch.spec import validate
from meliuscli.errors import SpecError

Value = int | str
"""A number, ``true`` or ``false``, or a word."""
Positive = Annotated[int, Field(strict=True, ge=1)]


MAX_VALUES = 4096


class Axis(BaseModel):
    """The values of one parameter: ``low`` to ``high`` in steps, or ``choices``: numbers, words, or true and false."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    low: Positive | None = None
    high: Positive | None = None
    step: Positive = 1
    choices: tuple[bool | int | str, ...] = ()

    @field_validator("choices", mode="before")
    @classmethod
    def _of_one_kind(cls, choices: Any) -> Any:
        if not isinstance(choices, list | tuple):
            raise ValueError("must be a list")
        kinds = {type(choice) for choice in choices}
        if len(kinds) > 1 or not kinds <= {bool, int, str}:
            one_a_stage = "; a list has one entry with choices for each stage" if kinds & {list, tuple} else ""
            raise ValueError(f"must be numbers, or words, or true and false{one_a_stage}")
        if kinds == {int} and min(choices) < 1:
            raise ValueError("must be numbers from 1 on")
        return choices

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if bool(self.choices) == (self.low is not None or self.high is not None):
            raise ValueError("needs either low and high, or choices")
        if not self.choices and (self.low is None or self.high is None or self.low > self.high):
            raise ValueError("needs low and high, and low must not be above high")
        numbers = range(self.low or 1, (self.high or 0) + 1, self.step)  # which holds none of them
        if len(self.choices) > MAX_VALUES or numbers[MAX_VALUES:]:
            raise ValueError(f"has more than {MAX_VALUES} values")
        return self

    @cached_property
    def values(self) -> tuple[Value, ...]:
        """Numbers ascend; words keep the file's order."""
        if self.choices:
            different = tuple(dict.fromkeys(self.choices))
            return different if isinstance(different[0], str) else tuple(sorted(different))
        assert self.low is not None
        assert self.high is not None
        return tuple(range(self.low, self.high + 1, self.step))

    @property
    def is_words(self) -> bool:
        """Are the values words, or true and false, and no numbers?"""
        return isinstance(self.values[0], bool | str)

    @property
    def corners(self) -> tuple[Value, ...]:
        """All words, or the least and the greatest number."""
        return self.values if self.is_words else (self.values[0], self.values[-1])


def read_axes(key: str, value: Any) -> Axis | tuple[Axis, ...]:
    """An axis from its table, or several from a list of tables. Raises ``SpecError`` that names the key."""
    if isinstance(value, Axis):
        return value
    if isinstance(value, list | tuple):
        return tuple(_read_axis(f"{key}.{index}", entry) for index, entry in enumerate(value, start=1))
    return _read_axis(key, value)


def axes_by_name(parameters: Mapping[str, Axis | tuple[Axis, ...]]) -> dict[str, Axis]:
    """``{"num_blocks": (a, b), "groups": c}`` as ``{"num_blocks.1": a, "num_blocks.2": b, "groups": c}``."""
    axes: dict[str, Axis] = {}
    for key, value in parameters.items():
        if isinstance(value, Axis):
            axes[key] = value
        else:
            axes.update({f"{key}.{index}": axis for index, axis in enumerate(value, start=1)})
    return axes


def fields_of(names: Iterable[str], values: Iterable[Value]) -> dict[str, Value | list[Value]]:
    """The fields of a spec from the names of axes and one value for each."""
    fields: dict[str, Any] = {}
    for name, value in zip(names, values, strict=True):
        key, _, index = name.partition(".")
        if index:
            fields.setdefault(key, []).append(value)
        else:
            fields[key] = value
    return fields


def check_word(key: str, word: Value, field_type: Any) -> None:
    """Raise ``SpecError`` where a field of this type takes no such word."""
    try:
        TypeAdapter[Any](field_type).validate_python(word)
    except ValidationError as error:
        problem = error.errors()[0]["msg"].replace("Input should be", "must be")
        raise SpecError(key, f"{problem}, not {word!r}") from None


def _read_axis(key: str, value: Any) -> Axis:
    if isinstance(value, Axis):
        return value
    if not isinstance(value, dict):
        raise SpecError(key, f"must be a table of low, high and step, or of choices, not {value!r}")
    try:
        return validate(Axis, value)
    except SpecError as error:
        raise SpecError(".".join(filter(None, (key, error.key))), error.problem, error.hint) from None
