"""JSON schemas are widened by what is seen, and know when they have not seen enough."""

from __future__ import annotations

import json

from json_schemas import FOLDER, problems, unseen, widened

ALWAYS_NULL = ["compare.networks[].verified"]
"""What one command has for another's sake."""


def test_what_a_schema_knows_as_null_or_empty_alone_was_seen_otherwise() -> None:
    """Else it refuses the first answer that has something there: samples hold every shape that an answer can have."""
    schemas = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in FOLDER.glob("*.json")}
    assert [path for name, schema in sorted(schemas.items()) for path in unseen(schema, name)] == ALWAYS_NULL
    seen = widened(widened({}, {"a": None, "b": []}), {"a": 1, "b": []})
    assert list(unseen(seen, "x")) == ["x.b"]


def test_a_value_that_is_not_as_its_schema_says_is_found_out() -> None:
    schema = widened(widened({}, {"a": 1, "b": [{"c": None}]}), {"a": 2.5, "b": []})
    assert list(problems(schema, {"a": 1, "b": [{"c": None}]})) == []
    assert list(problems(schema, {"a": "x", "b": [{}], "d": 1})) == [
        "$.a is string, not number",
        "$.b[0].c is missing",
        "$.d is in no schema",
    ]
