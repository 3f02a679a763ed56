"""What the package's own files promise of each other, read from their text."""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import meliuscli
from meliuscli.cli.app import COMMANDS

PACKAGE = Path(meliuscli.__file__).parent
MIRRORED = ("arch/families", "nn/families")
"""A family's two files have names in common: what it is, and the network in torch."""
LONGEST_BODY = 25
"""Lines of a command's body: it parses, calls one function, and prints."""
LONGEST_FILE = 250
LONG_FILES = {"nn/dense_stage.py": "one kernel: a stage forward and backward shares its buffers over all of it"}
"""Files that may be longer, each with its reason."""
LONGEST_FUNCTION = 40
LONG_FUNCTIONS = {
    "packed/contract.py: conv_kernel": "writes one kernel, whose loops nest",
    "packed/plane_steps.py: plane_step": "lays out the arguments of one kernel in their order",
    "packed/planes.py: plane_kernel": "writes one kernel, whose loops nest",
    "packed/planes.py: plane_kernel.unit": "is the body of that kernel's loop",
    "packed/planes.py: gather_kernel": "writes one kernel, whose loops nest",
    "packed/run_kernel.py: run_ir": "is the text of one kernel",
}
"""Generators of kernels, which may be longer."""


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def test_no_two_public_classes_share_a_name() -> None:
    places = defaultdict(list)
    for path, module in modules():
        for node in module.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(path)
    assert len(places) > 100
    twice = {name: found for name, found in places.items() if len(found) > 1 and not is_mirrored(found)}
    assert twice == {}


def functions(body: ast.AST, path: str, outer: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """Every function in a module by its place: ``packed/planes.py: plane_kernel.unit``."""
    for node in ast.iter_child_nodes(body):
        name = f"{outer}.{node.name}".lstrip(".") if isinstance(node, ast.FunctionDef | ast.ClassDef) else outer
        if isinstance(node, ast.FunctionDef):
            yield f"{path}: {name}", node
        yield from functions(node, path, name)


def num_lines(path: str, function: ast.FunctionDef) -> int:
    """Lines of a function; of a command, and of its like in the API, without the options that it takes."""
    is_command = path.startswith("cli/") and function.name.rstrip("_").replace("_", "-") in COMMANDS
    is_command |= path.startswith("api/") and function.name in meliuscli.__all__
    assert function.end_lineno is not None
    return function.end_lineno - (function.body[0].lineno if is_command else function.lineno) + 1


def test_a_function_is_short() -> None:
    lines = {place: num_lines(path, one) for path, module in modules() for place, one in functions(module, path)}
    assert len(lines) > 2000
    assert {place for place, number in lines.items() if number > LONGEST_FUNCTION} == set(LONG_FUNCTIONS)


def test_a_file_is_short() -> None:
    docs = Path(__file__).parents[1] / "docs"
    files = {path.relative_to(PACKAGE).as_posix(): path for path in PACKAGE.rglob("*.py")}
    files |= {f"docs/{path.relative_to(docs).as_posix()}": path for path in docs.rglob("*.py")}
    assert len(files) > 250
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in files.items()}
    assert {name for name, number in lines.items() if number > LONGEST_FILE} == set(LONG_FILES)


def is_mirrored(places: list[str]) -> bool:
    """Are these the two files of one family?"""
    folders = sorted(path.rpartition("/")[0] for path in places)
    return folders == sorted(MIRRORED) and len({path.rpartition("/")[2] for path in places}) == 1


def test_two_files_of_one_family_may_share_a_name_and_no_others() -> None:
    assert is_mirrored(["nn/families/resnet.py", "arch/families/resnet.py"])
    assert not is_mirrored(["nn/families/resnet.py", "arch/families/dense.py"])
    assert not is_mirrored(["nn/families/resnet.py", "nn/families/dense.py"])
    assert not is_mirrored(["nn/families/resnet.py", "data/catalog.py"])


@pytest.mark.parametrize("command", COMMANDS)
def test_a_commands_body_is_short(command: str) -> None:
    name = "import_" if command == "import" else command.replace("-", "_")
    module = ast.parse((PACKAGE / "cli" / f"{name}.py").read_text(encoding="utf-8"))
    (body,) = (
        node.body
        for node in module.body
        if isinstance(node, ast.FunctionDef) and node.name == ("list_" if name == "list" else name)
    )
    assert ast.get_docstring(ast.Module(body, [])), "help"
    lines = body[-1].end_lineno - body[1].lineno + 1  # type: ignore[operator]
    assert lines <= LONGEST_BODY


@pytest.mark.parametrize("path", [path for path, _ in modules() if path.startswith("cli/")])
def test_the_shell_knows_no_json_no_lock_and_no_origin(path: str) -> None:
    module = ast.parse((PACKAGE / path).read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(module) if isinstance(node, ast.ImportFrom) for alias in node.names}
    imported = {alias.name for node in ast.walk(module) if isinstance(node, ast.Import) for alias in node.names}
    called = {node.attr for node in ast.walk(module) if isinstance(node, ast.Attribute)}
    assert not imported & {"json", "filelock"}
    assert not names & {"json_text", "write_json", "write_record", "read_record", "origin", "FileLock"}
    assert not called & {"lock", "held", "resume_command"}


OWNERS = {
    "PIL": ("data/decode.py",),
    "filelock": ("data/cache.py", "search/backend.py", "search/databases.py", "training/", "work/folders.py"),
    "fvcore": ("counting/traced.py",),
    "google": ("search/proxy.py",),
    "grpc": ("search/proxy.py",),
    "h5py": ("exchange/larq.py",),
    "llvmlite": ("packed/",),
    "matplotlib": ("report/figures.py",),
    "numpy": (
        "counting/foreign/",
        "data/",
        "evidence/",
        "exchange/",
        "export/",
        "nn/quantizers.py",
        "packed/",
        "search/",
        "report/check.py",
        "report/trial.py",
    ),
    "onnx": ("exchange/qonnx_graph.py", "export/"),
    "onnxruntime": ("exchange/opened.py", "export/onnx.py"),
    "onnxscript": ("export/onnx.py",),
    "optuna": ("search/",),
    "pandas": ("report/study_page.py",),
    "platformdirs": ("data/catalog.py", "results.py"),
    "pydantic": ("arch/", "search/", "training/"),
    "qonnx": ("export/qonnx.py",),
    "redis": ("search/redis_journal.py",),
    "rich": ("cli/",),
    "safetensors": ("export/packed.py", "training/"),
    "sqlalchemy": ("search/databases.py",),
    "torch": (
        "cli/",
        "counting/",
        "data/",
        "exchange/",
        "export/",
        "nn/",
        "packed/",
        "training/",
        "search/together.py",
    ),
    "typer": ("cli/",),
}
"""Third-party libraries, and the files or folders that may import them; no other may, and no other library is imported."""


def imported(module: ast.Module) -> set[str]:
    """The libraries that are imported anywhere in a module, within functions too."""
    found = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"meliuscli"}


def test_every_library_has_its_owners() -> None:
    used, strangers = defaultdict(set), []
    for path, module in modules():
        for library in imported(module):
            used[library].add(path)
            if not path.startswith(OWNERS.get(library, ())):
                strangers.append(f"{path} imports {library}")
    assert strangers == []
    idle = [
        f"{place} for {library}"
        for library, places in OWNERS.items()
        for place in places
        if not any(p.startswith(place) for p in used[library])
    ]
    assert idle == [], "who no longer imports it owns it no more"


def test_the_reports_that_the_page_calls_committed_are_not_ignored() -> None:
    """A study of `reports/` is ignored unless .gitignore excepts it; a folder that was forgotten there is missing in every clone."""
    root = Path(__file__).parents[1]
    named = re.findall(r"^- `([\w-]+)/`", (root / "reports/README.md").read_text(encoding="utf-8"), re.MULTILINE)
    excepted = re.findall(r"^!reports/([\w-]+)/$", (root / ".gitignore").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(named) > 5
    assert sorted(named) == sorted(excepted)
    assert [name for name in named if not any((root / "reports" / name).iterdir())] == []
