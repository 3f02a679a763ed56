"""ArchSpec: the frozen value that is a network. Validation, canonical form, archid, TOML in and out."""

from __future__ import annotations

import difflib
import hashlib
import json
import tomllib
from abc import abstractmethod
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from meliuscli.arch.narrowing import narrow_all
from meliuscli.arch.plan import Layer
from meliuscli.arch.summary import legend_of, summarise
from meliuscli.errors import BadInputError, SpecError

# Strict, so that 4.0 and true are refused; bounded, so that no typo unrolls into millions of layers.
Count = Annotated[int, Field(strict=True, ge=1, le=1024)]
Width = Annotated[int, Field(strict=True, ge=1, le=65536)]

PadValue = Literal[-1, 0, 1]
"""What lies around a map of signs in a padded binary convolution."""
Padding = Literal["symmetric", "same"]
"""Where the border of a strided layer lies: on both sides alike, or TensorFlow's "same", with the odd pixel behind. The sizes of
maps are equal."""

RECENT = 32
"""Networks whose layers are kept."""

Model = TypeVar("Model", bound=BaseModel)


class ArchSpec(BaseModel):
    """What every network has. Subclasses add a family's fields and unroll themselves into layers."""

    # Deferred: a command pays for the families it uses.
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    ratios: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Keys that are taken as input only -> the widths that each stands for."""
    scale: ClassVar[str] = ""
    """The ratio that a number behind a network's name stands for: ``pokebnn-0.9``."""
    letters: ClassVar[Mapping[str, str]] = {}
    """Fields that the short form always has -> the letter in front of each."""
    one_for_all: ClassVar[tuple[str, ...]] = ()
    """Lists that may be given as one number for all their entries."""
    widths: ClassVar[tuple[str, ...]] = ()
    """Fields that hold numbers of channels, which narrowing divides."""
    small_images: ClassVar[Mapping[str, str | int]] = {}
    """Fields with the values that suit inputs below ``meliuscli.arch.adapt.THUMBNAIL_BELOW``."""
    later: ClassVar[tuple[str, ...]] = ()
    """Fields that the family was given after its networks had been named: at their default they are no part of ``archid``."""
    legend: ClassVar[str] = ""
    """How the short form is read, for the family as a whole."""

    family: str
    num_classes: Width = 1000
    input_size: Annotated[int, Field(strict=True, ge=1, le=16384)] = 224
    input_channels: Width = 3

    @abstractmethod
    def layers(self) -> tuple[Layer, ...]:
        """The layers in order of execution. Raises ``SpecError`` where the network cannot exist."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        cls.legend = legend_of(cls.letters)
        if "layers" in vars(cls):
            # A network is validated, counted and described in one go, each time from its layers.
            cls.layers = lru_cache(maxsize=RECENT)(vars(cls)["layers"])  # type: ignore[method-assign]

    @model_validator(mode="after")
    def _must_unroll(self) -> Self:
        try:
            self.layers()
        except SpecError as error:
            others = [(key, value) for key, value in self.small_images.items() if getattr(self, key) != value]
            if error.key == "input_size" and others:
                hint = " and ".join(f"another {key}: {key}={value}" for key, value in others)
                raise SpecError(error.key, error.problem, f"small images take {hint}") from None
            raise
        return self

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return (self.input_channels, self.input_size, self.input_size)

    @property
    def archid(self) -> str:
        """Twelve hex digits of SHA-256 over the canonical form: names the architecture, never its weights."""
        fields = self.model_dump(mode="json")
        for key in self.later:
            if getattr(self, key) == type(self).model_fields[key].default:
                del fields[key]
        canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    def replace(self, **changes: Any) -> Self:
        """A new, validated spec with some fields changed."""
        return validate(type(self), {**self.model_dump(), **changes})

    def summary(self) -> str:
        """The network in one short line of its family's fields; ``legend`` says how to read it. Within a family, and for
        the same task, different networks have different lines."""
        return summarise(self)

    def multiple_of(self, key: str) -> int:
        """What the widths of this field must stay multiples of when they are narrowed."""
        del key
        return 1

    def narrowed(self, divisor: int) -> Self:
        """The same topology with every width divided by ``divisor`` and rounded up, as far as groups and reductions need
        to a multiple of something; equal widths stay equal, different ones different. Raises ``SpecError`` where the
        family has no widths to narrow."""
        if not self.widths:
            from meliuscli.arch.families import families_with_widths

            known = ", ".join(families_with_widths())
            raise SpecError("family", f"{self.family} cannot be narrowed", f"families that can: {known}")
        values = {key: _as_tuple(getattr(self, key)) for key in self.widths}
        pairs = [(width, self.multiple_of(key)) for key, widths in values.items() for width in widths]
        small = narrow_all(pairs, divisor)
        lists = {key: tuple(small[width] for width in widths) for key, widths in values.items()}
        return self.replace(
            **{key: new if isinstance(getattr(self, key), tuple) else new[0] for key, new in lists.items()}
        )

    def to_toml(self) -> str:
        """TOML text from which ``meliuscli.arch.zoo.load_arch`` makes an equal spec."""
        # Fields are strings, numbers, booleans and lists of them, which JSON writes as TOML does, on one line.
        return "".join(f"{key} = {json.dumps(value)}\n" for key, value in self.model_dump(mode="json").items())


def _as_tuple(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)


def validate(model: type[Model], fields: dict[str, Any], where: str = "") -> Model:
    """Build a model, with pydantic's first complaint turned into a ``SpecError`` that names the key.

    ``where`` is put before the key (a file name, say)."""
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        # Entries of lists are counted from 1, as everywhere else.
        parts = (part + 1 if isinstance(part, int) else part for part in first["loc"] if part != "function-after")
        key = ".".join(map(str, parts))
        problem = (
            first["msg"]
            .removeprefix("Value error, ")
            .replace("Input should be", "Must be")
            .replace("Tuple should have", "Must have")
            .replace(" after validation", "")
            .replace("tuple", "list")
        )
        if first["type"] == "extra_forbidden":
            known = [*model.model_fields, *getattr(model, "ratios", ())]
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]}? " if near else ""
            raise SpecError(f"{where}{key}", "unknown key", f"{hint}known keys: {', '.join(known)}") from None
        if first["type"] == "missing":
            problem = "missing"
        elif isinstance(first["input"], dict) or ", not " in problem:
            problem = f"{problem[:1].lower()}{problem[1:]}"
        else:
            problem = f"{problem[:1].lower()}{problem[1:]}, not {first['input']!r}"
        raise SpecError(f"{where}{key}", problem) from None
    except SpecError as error:
        raise SpecError(f"{where}{error.key}", error.problem, error.hint) from None


MAX_TOML = 2**20
"""More bytes than a network, a space or a recipe has."""


def parse_toml(content: bytes, where: object) -> dict[str, Any]:
    """TOML as a dict. Raises ``BadInputError`` naming ``where`` it is from."""
    if len(content) > MAX_TOML:
        raise BadInputError(f"{where}: not valid TOML: it has more than {MAX_TOML:,} bytes")
    try:
        return tomllib.loads(content.decode("utf-8-sig").replace("\r\n", "\n"))
    except UnicodeDecodeError:
        raise BadInputError(f"{where}: not valid TOML: it is no text of UTF-8") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits is no error of TOML
        raise BadInputError(f"{where}: not valid TOML: {error}") from None


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as a dict; a missing, unreadable or malformed one is a clear error."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_TOML + 1)  # a device ends nowhere
    except (FileNotFoundError, NotADirectoryError):
        raise BadInputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise BadInputError(f"{path}: is a directory, not a TOML file") from None
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read: {error.strerror}") from None
    return parse_toml(content, path)
