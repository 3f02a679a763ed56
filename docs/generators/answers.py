"""The keys of the JSON that commands print, read from what they print."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from generators.markup import code, table

DOCS = Path(__file__).parents[1]
JSON_COMMANDS = (
    ("count", "count meliusnet22 --no-verify"),
    ("compare", "compare meliusnet22"),
    ("predict", "predict meliusnet22"),
    ("list", "list"),
    ("show NETWORK", "show meliusnet22"),
    ("show study:NAME, and search", "show study:transfer-cifar10"),
)
SCHEMAS = DOCS / "reference" / "schemas"


def json_page() -> str:
    parts = [
        "# JSON\n",
        "`--format json` writes one JSON value to stdout. Numbers are raw: counts are integers, accuracies are fractions"
        " (0.7) where a training gives them and percent (70.1) where a paper prints them, sizes are bytes. A value that is"
        " not known is null. `schema_version` is one more where a key goes or changes its meaning or type; new keys do not"
        " change it. `[]` stands for every element of a list, `*` for every key of an object.\n",
        "## Schemas\n",
        "Every answer has a [JSON Schema](https://json-schema.org) (draft 2020-12), which a test holds real answers against. What is"
        " required is there in every answer; keys may be added, so a reader leaves those alone that it does not know.\n",
        table(["schema", ""], [_schema_row(path) for path in sorted(SCHEMAS.glob("*.json"))]),
    ]
    for title, words in JSON_COMMANDS:
        value = json.loads(_run([*words.split(), "--format", "json"]))
        rows = [
            [code(path), " or ".join(sorted(kinds)), _sample(sample)] for path, (kinds, sample) in shape(value).items()
        ]
        parts += [
            f"## {title}\n",
            f"As `meliuscli {words} --format json` prints it:\n",
            table(["key", "type", "for example"], rows),
        ]
    return "\n".join(parts)


def _schema_row(path: Path) -> tuple[str, str]:
    return f"[{path.name}](schemas/{path.name})", json.loads(path.read_text(encoding="utf-8"))["description"]


def _run(words: Sequence[str]) -> str:
    """What a command prints, run in this process and in the repository."""
    from meliuscli.cli.app import make_app

    out = io.StringIO()
    with contextlib.chdir(DOCS.parent), contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        make_app(words)(words, standalone_mode=False)
    return out.getvalue()


FREE_KEYS = ("macs", "weights", "disputed", "spec")
"""Objects whose keys are data."""


def shape(
    value: Any, path: str = "", found: dict[str, tuple[set[str], Any]] | None = None
) -> dict[str, tuple[set[str], Any]]:
    """Path -> the types that stand there, and the first value."""
    found = {} if found is None else found
    name = path.rpartition(".")[2]
    if isinstance(value, dict):
        for key, inner in value.items():
            shape(inner, f"{path}.{'*' if name in FREE_KEYS else key}".lstrip("."), found)
    elif isinstance(value, list) and value:
        for inner in value:
            shape(inner, f"{path}[]", found)
    else:
        kinds, sample = found.setdefault(path, (set(), value))
        kinds.add(_json_type(value))
        if sample is None and value is not None:
            found[path] = (kinds, value)
    return found


def _json_type(value: object) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null", list: "list"}
    return names[type(value)]


def _sample(value: object) -> str:
    text = json.dumps(round(value, 4) if isinstance(value, float) else value, ensure_ascii=False)
    return code(text if len(text) <= 60 else f"{text[:56]}...")
