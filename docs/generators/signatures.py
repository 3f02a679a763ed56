"""The Python API: its functions and classes, with their signatures and docstrings."""

from __future__ import annotations

import inspect
import re
from typing import Any

from generators.markup import code, prose, table


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
