"""Write the reference pages from the commands, the models and the tables: ``python docs/generate.py``.

A test holds the committed pages against what this makes (``tests/test_reference.py``)."""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
HEAD = "<!-- Made by docs/generate.py: change what it is made from, not this page. -->\n\n"


def main() -> None:
    for name, text in pages().items():
        path = DOCS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """Path in docs -> text of every generated page."""
    made: dict[str, Callable[[], str]] = {
        "reference/commands.md": commands_page,
        "reference/networks.md": networks_page,
        "reference/spaces.md": spaces_page,
        "reference/recipes.md": recipes_page,
        "reference/json.md": json_page,
        "reference/conventions.md": conventions_page,
        "reference/exit-codes.md": exit_codes_page,
        "reference/python.md": python_page,
    }
    written = {name: HEAD + page() for name, page in made.items()}
    written |= explanation_pages()
    return {**written, "llms.txt": llms_page(written)}


def llms_page(written: Mapping[str, str]) -> str:
    """The pages of the site with the sentence that each begins with, for programs that read it (llmstxt.org)."""
    by_hand = {path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8") for path in DOCS.rglob("*.md")}
    texts = {**by_hand, **written}
    lines = [f"- [{_title(texts[name])}]({name}): {_first_sentence(texts[name])}" for name in sorted(texts)]
    return "\n".join(["# meliuscli", "", f"> {_first_sentence(texts['index.md'])}", "", "## Pages", "", *lines, ""])


def _title(text: str) -> str:
    return next(line.removeprefix("# ") for line in text.splitlines() if line.startswith("# "))


def _first_sentence(text: str) -> str:
    body = text.removeprefix(HEAD).partition("\n\n")[2].strip().partition("\n\n")
    first = body[0] if not body[0].startswith("`meliuscli explain") else body[2].partition("\n\n")[0]
    plain = re.sub(r"[*]{2}|<!--.*?-->|\[([^\]]*)\]\([^)]*\)", r"\1", first)
    return re.split(r"(?<=[.:])\s", " ".join(plain.split()))[0]


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A pipe table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(_cell(cell) for cell in line)} |\n" for line in lines)


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def code(value: object) -> str:
    return f"`{value}`" if value not in (None, "") else ""


def prose(docstring: str | None) -> str:
    """A docstring as Markdown: reST's double ticks are single ones there."""
    return inspect.cleandoc(docstring or "").replace("``", "`")


# Commands


def commands_page() -> str:
    import typer

    from meliuscli.cli.app import make_app

    group: Any = typer.main.get_command(make_app([]))
    parts = [
        "# Commands\n",
        "`meliuscli COMMAND --help` says the same. Four options stand in any place of a command line:\n",
        _options(group.params, _context(group)),
        *(_command(name, command) for name, command in group.commands.items()),
    ]
    return "\n".join(parts)


def _command(name: str, command: Any) -> str:
    context = _context(command, name)
    usage = command.get_usage(context).removeprefix("Usage: ")
    example = str(command.epilog).removeprefix("Example: ")
    return "\n".join(
        [
            f"## {name}\n",
            f"{command.help}\n",
            f"```text\n{usage}\n```\n",
            _options(command.params, context),
            f"Example: `{example}`\n",
        ]
    )


def _context(command: Any, name: str = "") -> Any:
    return command.make_context(f"meliuscli {name}".strip(), [], resilient_parsing=True)


def _options(params: Sequence[Any], context: Any) -> str:
    """A row an argument or option, as the help has it: how it is written, and what it does."""
    records = [param.get_help_record(context) for param in params]
    return table(["", "what it does"], [[code(record[0]), record[1]] for record in records if record is not None])


# Fields of networks, spaces and recipes


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
    from meliuscli.search.space import Final, Proxy, SearchSpace, Transfer

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


# JSON


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


# Conventions, exit codes, Python


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


def exit_codes_page() -> str:
    from meliuscli import errors

    classes = [
        errors.FailedError,
        errors.BadInputError,
        errors.MissingError,
        errors.InterruptedByUser,
        errors.MeliusError,
    ]
    rows = [["0", "done: stdout is the answer", ""]]
    rows += [[str(one.exit_code), prose(one.__doc__).partition("\n")[0], code(one.__name__)] for one in classes[:-1]]
    rows.append(["70", "A fault of meliuscli itself. The message asks to report it.", "any other exception"])
    return "\n".join(
        [
            "# Exit codes\n",
            "The answer goes to stdout, and everything else to stderr. An error is a message, and mostly a hint that says"
            " what to do. In Python the same errors are exceptions of the type in the last column.\n",
            table(["code", "when", "in Python"], rows),
        ]
    )


def python_page() -> str:
    import meliuscli
    from meliuscli import api

    parts = [
        "# Python\n",
        f"`import meliuscli as mc` loads no torch. {prose(_module_doc())}\n",
    ]
    for name in meliuscli.__all__:
        value = getattr(api, name, None)  # once imported, packages of the same names stand in the package
        if inspect.isclass(value) or inspect.isfunction(value):
            parts += [f"## {name}\n", *_signature(name, value), f"{prose(value.__doc__)}\n", *_members(value)]
    return "\n".join(parts)


def _module_doc() -> str:
    from meliuscli import api

    return inspect.cleandoc(api.__doc__ or "").partition("\n\n")[2]


def _signature(name: str, value: Any) -> list[str]:
    if inspect.isclass(value):
        return []
    parameters = inspect.signature(value)
    words = _unquoted(str(parameters)).replace("PosixPath('reports')", '"reports"').replace("'", '"')
    words = re.sub(r"<[\w.]+\.(\w+) object at 0x\w+>", r"\1()", words)
    flat = f"{name}{words}"
    if len(flat) > 100:
        inner = [f"    {one},\n" for one in _split(words[1 : words.rindex(")")])]
        flat = f"{name}(\n{''.join(inner)}){words[words.rindex(')') + 1 :]}"
    return [f"```text\n{flat}\n```\n"]


def _unquoted(signature: str) -> str:
    """Annotations are text, and stand in quotes."""
    return re.sub(r"(: |-> )'((?:[^'\\]|'(?=[,\]|]))*?)'", r"\1\2", signature)


def _split(words: str) -> list[str]:
    """At commas outside of brackets."""
    parts, depth = [""], 0
    for char in words:
        depth += (char in "[(") - (char in "])")
        if char == "," and not depth:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts if part.strip()]


def _members(value: Any) -> list[str]:
    if not inspect.isclass(value):
        return []
    rows = []
    for name, member in vars(value).items():
        if name.startswith("_"):
            continue
        function = member.fget if isinstance(member, property) else member
        if inspect.isfunction(function):
            words = _unquoted(str(inspect.signature(function))).replace("(self, ", "(").replace("(self)", "()")
            call = "" if isinstance(member, property) else words
            rows.append([code(f"{name}{call}"), prose(function.__doc__)])
    return [table(["member", "what it is"], rows)] if rows else []


# Explanation


def explanation_pages() -> dict[str, str]:
    """The pages of ``meliuscli explain``, as Markdown."""
    from meliuscli.report.explain import TOPICS, topic_markdown

    return {f"explanation/{name}.md": HEAD + topic_markdown(name) for name in TOPICS}


if __name__ == "__main__":
    main()
