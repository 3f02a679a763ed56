"""The fields of networks, search spaces and recipes, and the conventions: what the package has as models and tables."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from generators.markup import code, prose, table


def fields_table(model: Any, derived: Collection[str] = ()) -> str:
    """A row a field of a pydantic model: its values, and its default; ``derived`` fields follow from others."""
    schema = model.model_json_schema()
    required, definitions = schema.get("required", []), schema.get("$defs", {})
    rows = [
        [
            code(key),
            kind(value, definitions),
            "from the others" if key in derived else "needed" if key in required else code(_default(model, key)),
        ]
        for key, value in schema["properties"].items()
    ]
    return table(["field", "values", "default"], rows)


def _default(model: Any, key: str) -> str:
    default = model.model_fields[key].get_default(call_default_factory=True)
    if hasattr(default, "model_dump"):
        return ""
    return "none" if default is None else json.dumps(default)


def kind(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """What a field takes, in words, from its JSON schema."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"a table: [{name}](#{name.lower()})" if name != "Axis" else "an axis"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(kind(one, definitions) for one in schema["anyOf"]))
    if "enum" in schema:
        return ", ".join(code(value) for value in schema["enum"])
    if "const" in schema:
        return code(schema["const"])
    if "prefixItems" in schema:
        return f"a list of {len(schema['prefixItems'])}: {kind(schema['prefixItems'][0], definitions)}"
    if schema.get("type") == "array":
        return f"a list of: {kind(schema.get('items', {}), definitions)}"
    if schema.get("type") == "object":
        return "a table"
    names = {"integer": "whole number", "number": "number", "boolean": "`true` or `false`", "null": "none"}
    name = names.get(schema.get("type", ""), "text" if schema.get("type") == "string" else "any value")
    return f"{name}{_bounds(schema)}"


def _bounds(schema: Mapping[str, Any]) -> str:
    words = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
    return "".join(f" {word} {schema[key]:g}" for key, word in words.items() if key in schema)


def networks_page() -> str:
    from meliuscli.arch.families import FAMILIES, family_class
    from meliuscli.arch.zoo import arch_names, load_name, zoo_table

    parts = [
        "# Networks and their fields\n",
        "A network is a TOML file of these fields, or a name. `meliuscli show NAME --toml` writes the file of a named"
        " network, `--set FIELD=VALUE` changes a field on the command line. Every network has the fields"
        " `num_classes`, `input_size` and `input_channels`. The short form is how tables write a network without a name.\n",
    ]
    for name in FAMILIES:
        model = family_class(name)
        named = [one for one in arch_names() if load_name(one).family == name]
        given = [set(zoo_table()[one]) for one in named]
        derived = [
            key
            for key, field in model.model_fields.items()
            if field.is_required() and not all(key in one for one in given)
        ]
        ratios = [f"{code(key)} gives {', '.join(map(code, widths))}" for key, widths in model.ratios.items()]
        parts += [
            f"## {name}\n",
            f"{prose(model.__doc__)}\n",
            fields_table(model, derived),
            *([f"As input only: {'; '.join(ratios)}.\n"] if ratios else []),
            f"Short form: {model.legend}. Narrowing (`--width-divisor`) divides"
            f" {', '.join(map(code, model.widths)) or 'no field: the family cannot be narrowed'}.\n",
            f"Names: {', '.join(map(code, named))}.\n",
        ]
    return "\n".join(parts)


def spaces_page() -> str:
    from meliuscli.search.axis import Axis
    from meliuscli.search.files import space_names, space_purpose
    from meliuscli.search.space import SearchSpace
    from meliuscli.search.ways import Final, Proxy, Transfer

    parts = [
        "# Search spaces\n",
        "A search space is a TOML file: which fields of a family vary, what the network is meant for (the target), and how"
        " candidates are trained. `meliuscli show space:NAME` prints the file of a space that comes with the tool.\n",
        table(["space", "for"], [[code(name), space_purpose(name)] for name in space_names()]),
        f"## The file\n\n{prose(SearchSpace.__doc__)}\n",
        fields_table(SearchSpace),
        "The recipes in a space have the fields of [recipes](recipes.md).\n",
    ]
    for model in (Axis, Proxy, Final, Transfer):
        parts += [f"## {model.__name__}\n", f"{prose(model.__doc__)}\n", fields_table(model)]
    return "\n".join(parts).replace("(#recipe)", "(recipes.md)")


def recipes_page() -> str:
    from meliuscli.training.recipe import Recipe, recipe_table

    differing = [
        [code(name), ", ".join(code(f"{key} = {json.dumps(value)}") for key, value in fields.items()) or "the defaults"]
        for name, fields in recipe_table().items()
    ]
    parts = [
        "# Recipes\n",
        "A recipe says how a network is trained: a name, or a TOML file of these fields (`train --recipe`). A field that"
        " is not given has its default. `--recipe-set FIELD=VALUE` changes one on the command line.\n",
        table(["recipe", "differs from the defaults in"], differing),
        "## Fields\n",
        fields_table(Recipe),
        "## What they mean\n",
        f"{prose(Recipe.__doc__)}\n",
    ]
    return "\n".join(parts)


def conventions_page() -> str:
    from meliuscli.counting.conventions import CONVENTIONS

    rows = [[code(rule.name), rule.paper, rule.legend] for rule in CONVENTIONS.values()]
    return "\n".join(
        [
            "# Conventions\n",
            "The value of `--convention`. [Why papers differ](../explanation/conventions.md) has the rules side by side.\n",
            table(["convention", "paper", "rule"], rows),
        ]
    )
