"""The generated pages of docs are what the commands, models and tables of today give."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from meliuscli.arch.families import FAMILIES, family_class
from meliuscli.cli.app import COMMANDS
from meliuscli.report.explain import TOPICS
from meliuscli.training.recipe import Recipe

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def generate() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(DOCS)
        yield importlib.import_module("generate")


@pytest.fixture(scope="module")
def made(generate: ModuleType) -> dict[str, str]:
    return dict(generate.pages())


def test_the_committed_pages_are_what_the_generator_makes(made: dict[str, str]) -> None:
    stale = [name for name, text in made.items() if (DOCS / name).read_text(encoding="utf-8") != text]
    assert not stale, "run: python docs/generate.py"


def test_no_generated_page_is_left_over(generate: ModuleType, made: dict[str, str]) -> None:
    marked = {path for path in DOCS.rglob("*.md") if path.read_text(encoding="utf-8").startswith(generate.HEAD)}
    assert marked == {DOCS / name for name in made if name.endswith(".md")}


def test_every_command_family_field_and_topic_has_its_place(made: dict[str, str]) -> None:
    assert all(f"## {command}\n" in made["reference/commands.md"] for command in COMMANDS)
    networks = made["reference/networks.md"]
    for family in FAMILIES:
        section = networks.partition(f"## {family}\n")[2].partition("\n## ")[0]
        assert all(f"| `{field}` |" in section for field in family_class(family).model_fields)
    assert all(f"| `{field}` |" in made["reference/recipes.md"] for field in Recipe.model_fields)
    assert {f"explanation/{topic}.md" for topic in TOPICS} <= set(made)


@pytest.mark.usefixtures("generate")
def test_values_are_said_in_words() -> None:
    kind = importlib.import_module("generators.fields").kind
    assert kind({"type": "integer", "minimum": 1, "maximum": 8}, {}) == "whole number from 1 to 8"
    assert (
        kind({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "null"}]}, {}) == "number above 0 or none"
    )
    assert kind({"type": "array", "items": {"type": "string"}}, {}) == "a list of: text"


@pytest.mark.usefixtures("generate")
def test_the_shape_of_a_value_has_every_key_with_its_types() -> None:
    found = importlib.import_module("generators.answers").shape({"rows": [{"a": 1}, {"a": None}], "macs": {"conv": 2}})
    assert found == {"rows[].a": ({"integer", "null"}, 1), "macs.*": ({"integer"}, 2)}
