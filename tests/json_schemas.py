"""JSON schemas of answers, made of real ones: widened by what is seen, and held against it.

Only the words of JSON Schema that stand in ``docs/reference/schemas`` are known here, so that no package is needed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from meliuscli.results import json_text

FOLDER = Path(__file__).parents[1] / "docs" / "reference" / "schemas"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
FREE_KEYS = (
    "macs",
    "weights",
    "disputed",
    "printed",
    "spec",
    "trained_as",
    "versions",
    "missing",
    "untrained",
    "recipe",
    "plan",
    "scores",
    "elsewhere_ms",
    "parameters",
)
"""Objects whose keys are data, or fields of a model that has a page of its own."""
ALIKE = ("scores",)
"""Of these all values are objects of one shape."""
KINDS = {"study": "study", "check": "check", "space": "space", "recipe": "recipe", "run": "run"}
"""What stands before the colon in ``show`` -> the schema of the answer."""
PUBLISHED = {
    "count": "count",
    "compare": "compare",
    "predict": "predict",
    "list": "list",
    "show": "network",
    "search": "study",
    "report": "study",
    "train": "run",
    "check-proxy": "check",
    "evaluate": "evaluation",
    "bench": "bench",
}
"""Command -> the schema of its answer."""

Schema = dict[str, Any]
TYPES: dict[type, str] = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}


def hold_answer(words: Sequence[str], text: str) -> None:
    """Hold what a command line wrote to stdout against its schema, where that is one JSON value."""
    if "--format" not in words or words[words.index("--format") + 1 :][:1] != ["json"] or {"-o", "--output"} & {*words}:
        return
    value = json.loads(text)
    if "schema_version" in value:
        hold(schema_of(words, value), value)


def schema_of(words: Sequence[str], value: dict[str, Any]) -> str:
    """The name of the schema of a command line's answer."""
    if "--print-config" in words:
        return "config"
    if words[0] == "show":
        kinds = [KINDS[word.partition(":")[0].lower()] for word in words[1:] if word.partition(":")[0].lower() in KINDS]
        return kinds[0] if kinds else "network"
    return "classes" if words[0] == "predict" and "images" in value else PUBLISHED[words[0]]


def hold(name: str, value: Any) -> None:
    """Hold an answer against its schema. ``MELIUSCLI_UPDATE_GOLDEN=1`` widens the schema by it."""
    path = FOLDER / f"{name}.json"
    schema = json.loads(path.read_text(encoding="utf-8"))
    if os.environ.get("MELIUSCLI_UPDATE_GOLDEN"):
        schema = widened(schema, value)
        path.write_text(json_text(schema), encoding="utf-8")
    wrong = list(problems(schema, value))
    assert not wrong, f"{path.name}: {wrong}"


def first(title: str, description: str) -> Schema:
    """The schema of an answer that nobody has seen yet."""
    return {"$schema": DIALECT, "title": title, "description": description}


def widened(schema: Schema, value: Any, name: str = "") -> Schema:
    """A schema that takes ``value`` too. What is required is what all values have."""
    if isinstance(value, dict):
        return _with_object(schema, value, name)
    if isinstance(value, list):
        items = schema.get("items", {})
        for one in value:
            items = widened(items, one, name)
        return _ordered({**schema, "type": _types(schema, "array"), **({"items": items} if items else {})})
    return _ordered({**schema, "type": _types(schema, TYPES[type(value)])})


def _with_object(schema: Schema, value: dict[str, Any], name: str) -> Schema:
    types = _types(schema, "object")
    if name in FREE_KEYS:
        inner = schema.get("additionalProperties", {})
        for one in value.values():
            is_free = inner is True or (name not in ALIKE and isinstance(one, dict | list))
            inner = True if is_free else widened(inner, one)
        return _ordered({**schema, "type": types, "additionalProperties": inner})
    properties = dict(schema.get("properties", {}))
    for key, one in value.items():
        properties[key] = widened(properties.get(key, {}), one, key)
    before = schema.get("required", list(value))
    required = [key for key in before if key in value]
    return _ordered({**schema, "type": types, "properties": properties, "required": required})


def _types(schema: Schema, name: str) -> str | list[str]:
    before = schema.get("type", [])
    names = {name, *([before] if isinstance(before, str) else before)}
    if "number" in names:
        names -= {"integer"}
    return names.pop() if len(names) == 1 else sorted(names)


def _ordered(schema: Schema) -> Schema:
    order = ("$schema", "title", "description", "type", "properties", "required", "items", "additionalProperties")
    return {key: schema[key] for key in order if key in schema}


def problems(schema: Schema, value: Any, path: str = "$") -> Iterator[str]:
    """Where a value is not as its schema says, and keys that the schema does not know."""
    types = schema.get("type")
    names = [types] if isinstance(types, str) else types
    found = "object" if isinstance(value, dict) else "array" if isinstance(value, list) else TYPES[type(value)]
    if names is not None and found not in names and not (found == "integer" and "number" in names):
        yield f"{path} is {found}, not {types}"
    elif isinstance(value, dict):
        properties, rest = schema.get("properties"), schema.get("additionalProperties", {})
        for key in schema.get("required", []):
            if key not in value:
                yield f"{path}.{key} is missing"
        for key, one in value.items():
            if properties is None:
                yield from () if rest is True else problems(rest, one, f"{path}.{key}")
            elif key in properties:
                yield from problems(properties[key], one, f"{path}.{key}")
            else:
                yield f"{path}.{key} is in no schema"
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield from problems(schema.get("items", {}), one, f"{path}[{index}]")


def unseen(schema: Schema, path: str) -> Iterator[str]:
    """Where a schema knows null alone, or lists without an element."""
    types = schema.get("type", [])
    if types == "null" or ("array" in types and "items" not in schema):
        yield path
    for key, one in schema.get("properties", {}).items():
        yield from unseen(one, f"{path}.{key}")
    for inner, mark in ((schema.get("items"), "[]"), (schema.get("additionalProperties"), ".*")):
        if isinstance(inner, dict):
            yield from unseen(inner, f"{path}{mark}")
